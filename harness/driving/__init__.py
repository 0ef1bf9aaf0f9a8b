"""The parts of ``harness.driver``: holding the run, calling the scheduler, submitting, following, ending."""
