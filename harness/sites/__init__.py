"""Site files from a cluster, and against it: ``probe`` writes one, ``check`` proves one by a small job."""
