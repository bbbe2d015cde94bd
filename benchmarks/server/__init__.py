"""This part measures `ipr serve` over loopback: a server, its upstream and the load each in processes of their own."""
