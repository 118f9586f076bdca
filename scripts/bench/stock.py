"""How gunicorn serves the bare view: with its own threaded worker, as a user would have it."""

import os

bind = os.environ["JOSE_HSM_BIND"]
workers = int(os.environ["WEB_CONCURRENCY"])
worker_class = "gthread"
threads = 16
keepalive = 75
control_socket_disable = True
loglevel = "warning"
