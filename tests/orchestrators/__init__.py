"""Files for Kubernetes and Swarm: rendered, held against the orchestrators' own schemas, and run where that can be."""
