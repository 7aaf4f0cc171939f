"""Chaos: three replicas behind a load balancer, forty clients, and one fault after the other; see __main__."""
