"""Several engines behind one address, by Ray Serve: docs/scaling.md.

`serve_app.build` is what Ray is given. Its HTTP proxies pass requests on to an `Ingress`, which
reads them, picks a replica by the prompt's beginning and relays the answer; a `Server` replica is
one engine with the same application that `bita serve` runs.
"""
