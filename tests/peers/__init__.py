"""JOSE libraries of others, each a program of its own that opens and makes messages.

A task is a line of JSON on stdin, with ``key`` (a private JWK), ``alg``, for a JWE ``enc``, and
either ``message``, which is to be opened, or ``payload``, ``kid`` and ``form`` (compact, json or
general) of one that is to be made. A message is a string or, flattened or general, an object. In
the general form ``kid`` and, of a JWE, ``alg`` are unprotected. The outcome is a line on stdout:
``payload``, ``message``, or what the library ``lacks`` in its own words.
"""
