"""A real Slurm cluster on one machine: real daemons, one set of namespaces for each node.

It exists so that losing a node, a reboot, a requeue and a partition can be tested where nobody is
hurt. Nothing here imitates Slurm, and nothing here touches a Slurm, munge or MariaDB that it did not
start itself: everything it owns is in one folder, marked by a cookie.

Who runs what: ``cli`` is the caller's terminal; ``daemon`` is the one root process that holds the
cluster; ``node`` and ``head`` run as process 1 of their own namespaces; ``power`` is the client that
a job runs as an ordinary user.
"""
