"""What runs inside a job: supervisor, agents, ranks and what they record. Never the driver, never HDF5."""
