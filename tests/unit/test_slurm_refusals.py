"""What a failed sbatch means for the job, by its own words: those of Slurm 22.05, provoked on the emulated cluster."""

import pytest

from harness.slurm.commands import CommandError, CommandTimeout, Refusal, refusal_of

POLICY = (
    "Batch job submission failed: Job violates accounting/QOS policy "
    "(job submit limit, user's size and/or time limits)"
)
FOR_GOOD = [
    "Batch job submission failed: Invalid partition name specified",
    "Batch job submission failed: Invalid account or account/partition combination specified",
    "Batch job submission failed: Invalid qos specification",
    "Batch job submission failed: Requested reservation is invalid",
    "Batch job submission failed: Access denied to requested reservation",
    "Batch job submission failed: Invalid license specification",
    "Batch job submission failed: Invalid feature specification",
    "Invalid generic resource (gres) specification",
    "Batch job submission failed: Invalid node name specified",
    "Batch job submission failed: User's group not permitted to use this partition",
    "Batch job submission failed: Requested node configuration is not available",
    "Batch job submission failed: Invalid job array specification",
    "Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
    "Batch job submission failed: Node count specification invalid",
    f"QOSMaxNodePerJobLimit sbatch: error: {POLICY}",
    f"QOSMaxWallDurationPerJobLimit sbatch: error: {POLICY}",
    "This does not look like a batch script.",
    "Invalid --time specification",
]
FOR_NOW = [
    f"AssocMaxSubmitJobLimit sbatch: error: {POLICY}",
    f"AssocGrpSubmitJobsLimit sbatch: error: {POLICY}",
    f"QOSMaxSubmitJobPerUserLimit sbatch: error: {POLICY}",
    f"QOSGrpSubmitJobsLimit sbatch: error: {POLICY}",
    "Batch job submission failed: Required partition not available (inactive or drain)",
    "Slurm temporarily unable to accept job, sleeping and retrying sbatch: error: Batch job submission failed: "
    "Resource temporarily unavailable",
    "Batch job submission failed: Requested reservation not usable now",
    "Batch job submission failed: System submissions disabled",
    "Batch job submission failed: Unable to create job record, try again",
]
UNCLEAR = [
    "Batch job submission failed: Unable to contact slurm controller (connect failure)",
    "Batch job submission failed: Socket timed out on send/recv operation",
    "Batch job submission failed: Protocol authentication error",
    "Batch job submission failed: Zero Bytes were transmitted or received",
    "Batch job submission failed: Unexpected message received",
    "Batch job submission failed: Slurm backup controller in standby mode",
]


def _said(text: str, code: int | None = 1) -> CommandError:
    return CommandError(f"sbatch: exit code {code}, said: sbatch: error: {text}", code)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        *((text, Refusal.FOR_GOOD) for text in FOR_GOOD),
        *((text, Refusal.FOR_NOW) for text in FOR_NOW),
        *((text, None) for text in UNCLEAR),
    ],
)
def test_every_known_answer_has_its_meaning(text: str, meaning: Refusal | None) -> None:
    assert refusal_of(_said(text)) is meaning


@pytest.mark.parametrize(
    "error",
    [
        CommandTimeout("sbatch: no answer within 20 s"),
        CommandError("sbatch: said 'hello', which names no job"),
        _said("anything", -9),  # killed
        CommandError("sbatch: exit code 1, said: sbatch: command aborted", 1),  # not its own plain error
    ],
)
def test_what_is_not_sbatchs_own_plain_error_means_nothing(error: CommandError) -> None:
    assert refusal_of(error) is None
