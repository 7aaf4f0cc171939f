"""The samples of config/load-balancers: each is started as it stands, with other addresses, before real caches."""
