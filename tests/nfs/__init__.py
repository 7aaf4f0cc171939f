"""The filesystem store on NFS: two client kernels, one file server, each a node of its own."""
