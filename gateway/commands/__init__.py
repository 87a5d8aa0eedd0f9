"""Commands of ``gateway``, each in a module of its own that loads what it needs only when it runs."""
