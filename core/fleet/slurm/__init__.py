"""Slurm: a run as a job of a cluster, behind any link. See ``SlurmCluster``.

How a launch goes (``core.fleet.remote_runs``):

1. ``cluster = cluster_of(pool, record)``; ``cluster.script(spec, run_id)`` is the preview, too.
2. The run directory is made on the login host's shared file system with ``cluster.placement(spec, run_id)``.
3. ``job_id = cluster.submit(cluster.run_dir(run_id), script, spec)``; the mirror follows the nodes of the placement.
4. The job's head writes the real ``placement.json`` and the run's states; until then, and once it is silent,
   ``cluster.state([job_id])`` tells.
5. Stop: a job that waits is cancelled (``cancel``), one that runs is asked through the run directory as ever.
"""

from core.fleet.slurm.cluster import SlurmCluster, cluster_of
from core.fleet.slurm.records import JobPhase, JobState, SlurmInfo, SlurmPartition
from core.fleet.slurm.values import slurm_problems

__all__ = ["JobPhase", "JobState", "SlurmCluster", "SlurmInfo", "SlurmPartition", "cluster_of", "slurm_problems"]
