"""Running programs that are not trusted. The threat model, the routes and the gaps are told in docs/sandbox.md.

`cell.py` runs on our side. Everything else but `view.py` runs inside the sandbox, where this folder is all there is of
the package, so it imports the standard library and its neighbours only.
"""
