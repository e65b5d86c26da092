"""The cluster: started or joined as the run would, what it has, and whether its nodes are alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from calibadv.cluster.nodes import NODE_S, SAME_EVERYWHERE, Cluster, Node
from calibadv.config import Config
from calibadv.doctor.finding import Finding, failed, passed, warned
from calibadv.doctor.subject import Subject
from calibadv.memory.parts import gpus_wanted

ClusterFn = Callable[[Config], AbstractContextManager[Cluster]]


def cluster(subject: Subject, *, joined: ClusterFn, wanted_cpus: Callable[[Config], float]) -> Iterator[Finding]:
    """Asks the cluster that `joined` starts or joins, which has to have what the run wants.

    Only with `deep`, or where the run joins a cluster that is up.
    """
    if not (subject.deep or subject.joins_cluster):
        yield passed("cluster", "a local Ray, not started here; --deep does")
        return
    with joined(subject.with_model) as found:
        yield enough("CPUs of the cluster", found.cpus, wanted_cpus(subject.config))
        if wanted := gpus_wanted(subject.config):
            yield enough("GPUs of the cluster", found.gpus, wanted)
        yield guarded(found.token)
        yield answered(found.nodes, found.silent)
        yield alike(found.nodes)
        yield sees_all(found.nodes, found.paths)


def enough(name: str, there: float, wanted: float) -> Finding:
    """What the cluster has against what the run asks for; what is short would wait for ever."""
    said = f"{there:g} there, {wanted:g} asked for"
    if there >= wanted:
        return passed(name, said)
    remedy = "add nodes, or lower rollout.engines, learner.learners, search.replicas or cluster.cpus_per_engine"
    return failed(name, f"{said}: actors would wait without end", remedy)


def guarded(token: bool) -> Finding:
    """Whether whoever reaches the cluster's ports may run code on it."""
    if token:
        return passed("cluster token", "Ray asks for it")
    remedy = "start every node with RAY_AUTH_MODE=token (cluster.yaml does), or let no one else into its network"
    return warned("cluster token", "none is asked for: whoever reaches the cluster's ports may run code on it", remedy)


def answered(nodes: Sequence[Node], silent: Sequence[str]) -> Finding:
    """Whether every node that Ray calls alive runs a task."""
    if silent:
        said = f"no answer within {NODE_S:g} s from {', '.join(silent)}"
        return failed("nodes", said, "see `ray status` and the node's logs; remove it, or start it again")
    return passed("nodes", f"{len(nodes)} answered")


def alike(nodes: Sequence[Node]) -> Finding:
    """Whether all nodes have the same versions: another Ray or torch fails late, and in odd words."""
    for package in ("python", *SAME_EVERYWHERE):
        found = {node.name: node.versions.get(package, "none") for node in nodes}
        if len(set(found.values())) > 1:
            said = f"{package}: {', '.join(f'{name} {version}' for name, version in found.items())}"
            return failed("same versions", said, "install the same lock on every node")
    return passed("same versions", f"{', '.join(('python', *SAME_EVERYWHERE))} are the same on every node")


def sees_all(nodes: Sequence[Node], paths: Sequence[str]) -> Finding:
    """Whether every node sees these files of the recipe and its variables, and has room for the cache."""
    missing = [f"{node.name}: {path}" for node in nodes for path in node.missing]
    if missing:
        remedy = "copy them to the same path on every node, or use a disk that all share, with HF_HOME of a hub model"
        return failed("files on nodes", f"not there: {', '.join(missing)}", remedy)
    unset = [f"{node.name}: {variable}" for node in nodes for variable in node.unset]
    if unset:
        return failed("files on nodes", f"not set: {', '.join(unset)}", "export it where Ray is started on the node")
    tight = [f"{node.name}: {node.free_gib:.1f} GiB" for node in nodes if node.free_gib < 2]
    if tight:
        return warned("files on nodes", f"little disk for the cache: {', '.join(tight)}", "make room on the node")
    seen = f"sees {', '.join(paths)}" if paths else "needs no file of the recipe"
    return passed("files on nodes", f"every node {seen}, and has room")
