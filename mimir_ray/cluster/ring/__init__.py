"""Hash rings: who is there, who owns which token, and how an instance comes and goes."""
