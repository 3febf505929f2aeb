"""Plain ASGI applications that are shipped with the server; they import nothing of ours."""
