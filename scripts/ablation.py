"""One command from nothing to the tables.

    python scripts/ablation.py demo_quick
    python scripts/ablation.py demo --jobs 2 --seeds 0 1 2
    python scripts/ablation.py table2c --jobs 1 data.root=/data/coco recipe=modern
    python scripts/ablation.py demo --show

trains the RPN, writes its proposals, trains every variant with every seed on them in one Hydra
multirun, and reports. What is done is skipped: the same command goes on after any interruption.
Words `key=value` go to the RPN and to the variants. NAME is a file of configs/ablation/, or the
path of such a file.
"""

import argparse
import fcntl
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from omegaconf import OmegaConf
from tqdm import tqdm

from build import build_data
from configuration import CONFIGS, composed
from files.atomic import make_folder
from ops.errors import InputError
from running.checkpoint import load_checkpoint, weights_digest
from train import run_name

PROJECT = Path(__file__).resolve().parents[1]
LAUNCHERS = ("joblib", "ray", "basic")
# Words that the ablation itself gives to its runs, and how to ask for them.
OURS = {
    "experiment": "name the variants in a file of configs/ablation",
    "seed": "use --seeds",
    "hydra/launcher": "use --launcher",
    "run.name": "use run.root",
    "run.dir": "use run.root",
}


@dataclass(frozen=True)
class Ablation:
    """What is to be done, and how.

    Attributes:
        family: folder of the runs, below `root`.
        rpn: the experiment that trains the proposals' RPN.
        variants: the experiments that are compared.
        seeds: each variant is trained with each.
        words: further settings, for the RPN and the variants alike.
        root: folder of all runs.
        launcher, jobs: what runs the variants, and how many at once.
    """

    family: str
    rpn: str
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    words: tuple[str, ...] = ()
    root: Path = Path("outputs")
    launcher: str = "joblib"
    jobs: int = 1

    @property
    def folder(self) -> Path:
        return self.root / self.family

    @property
    def proposals(self) -> Path:
        """The folder that the RPN's proposals are written to."""
        return self.run(self.rpn, 0) / "proposals"

    @property
    def runs(self) -> list[Path]:
        return [self.run(variant, seed) for variant in self.variants for seed in self.seeds]

    @property
    def brings_proposals(self) -> bool:
        """Whether the user names files of proposals, so that no RPN is needed."""
        return any(given.startswith("proposals.files.train=") for given in self.words)

    def run(self, experiment: str, seed: int) -> Path:
        """The folder that train.py gives to a run."""
        name = run_name(OmegaConf.create({"seed": seed}), {"experiment": experiment}, [*self.words])
        return self.root / name


def read_ablation(name: str) -> Ablation:
    """The ablation of that name in configs/ablation, or in the file of that path.

    Raises:
        InputError: there is none, or the file says something else.
    """
    folder = CONFIGS / "ablation"
    file = Path(name) if name.endswith(".yaml") else folder / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise InputError(f"{name}: no such ablation; choose one of {known}, or give a YAML file")
    told = OmegaConf.to_container(OmegaConf.load(file))
    wanted = {"family", "rpn", "variants", "seeds"}
    if not isinstance(told, dict) or set(told) != wanted:
        raise InputError(f"{file}: has to name {', '.join(sorted(wanted))}, and nothing else")
    return Ablation(told["family"], told["rpn"], tuple(told["variants"]), tuple(told["seeds"]))


def settled(
    ablation: Ablation, words: Sequence[str], launcher: str, jobs: int | None
) -> tuple[Ablation, list[str]]:
    """The ablation with the command line's choices, and the words for its variants alone.

    Raises:
        InputError: a word that does not exist, or that is not the user's to give.
    """
    for given in words:
        if remedy := OURS.get(given.partition("=")[0].lstrip("+")):
            raise InputError(f"{given}: is the ablation's own setting; {remedy}")
    ablation = replace(ablation, words=tuple(words))
    variant = composed("train", [f"experiment={ablation.variants[0]}", *words])
    if not ablation.brings_proposals:
        composed("train", [f"experiment={ablation.rpn}", *words])
    on_gpu = variant.device != "cpu" and torch.cuda.is_available()
    cores = len(os.sched_getaffinity(0))
    if launcher == "basic":
        jobs = 1
    runs = len(ablation.variants) * len(ablation.seeds)
    jobs = jobs or (1 if on_gpu else jobs_at_once(runs, cores))
    ablation = replace(ablation, launcher=launcher, jobs=jobs)
    changed = ablation.run(ablation.rpn, 0).parent.name.removeprefix(Path(ablation.rpn).name)
    if changed and not any(given.startswith("run.root=") for given in words):
        # Other settings, other tables: they are not to be mixed with those of the plain command.
        root = Path("outputs") / changed.strip("_").replace("=", "-")
        ablation = replace(ablation, words=(*words, word("run.root", root)))
    variant = composed("train", [f"experiment={ablation.variants[0]}", *ablation.words])
    ablation = replace(ablation, root=Path(variant.run.root))
    own = []
    if variant.threads is None and not on_gpu:
        own.append(f"threads={max(cores // jobs, 1)}")
    if not ablation.brings_proposals and Path(variant.proposals.files.train).parent != (
        ablation.proposals
    ):
        own += proposal_words(ablation)
    return ablation, own


def jobs_at_once(runs: int, cores: int) -> int:
    """As many runs as cores; or a few more where a second round would leave most cores idle."""
    return runs if cores < runs < 2 * cores else cores


def proposal_words(ablation: Ablation) -> list[str]:
    """What makes a variant read the proposals of the ablation's RPN."""
    folder = ablation.proposals
    files = {split: folder / f"{split}.safetensors" for split in ("train", "val")}
    return [word(f"proposals.files.{split}", file) for split, file in files.items()]


def word(key: str, path: Path) -> str:
    """`key=path`; quoted for Hydra, which reads `=` and the like in a bare value as its grammar."""
    value = str(path)
    return f"{key}={value}" if re.fullmatch(r"[\w./-]+", value) else f"{key}='{value}'"


# The commands


def rpn_command(ablation: Ablation) -> list[str]:
    return program("train.py", f"experiment={ablation.rpn}", "run.wait=true", *ablation.words)


def dump_command(ablation: Ablation) -> list[str]:
    run = ablation.run(ablation.rpn, 0)
    return program("scripts/dump_proposals.py", word("checkpoint", run))


def variants_command(ablation: Ablation, own: Sequence[str]) -> list[str]:
    """The one multirun: a sweep over variants and seeds."""
    launchers = {
        # Finished runs are skipped at once; in larger batches joblib would put long ones together.
        "joblib": [f"hydra.launcher.n_jobs={ablation.jobs}", "hydra.launcher.batch_size=1"],
        "ray": [
            f"+hydra.launcher.ray.init.num_cpus={ablation.jobs}",
            "+hydra.launcher.ray.init.include_dashboard=false",
            "+hydra.launcher.ray.init.logging_level=40",
            "+hydra.launcher.ray.remote.num_cpus=1",
        ],
        "basic": [],
    }
    return program(
        "train.py",
        "-m",
        f"experiment={','.join(ablation.variants)}",
        f"seed={','.join(map(str, ablation.seeds))}",
        f"hydra/launcher={ablation.launcher}",
        *launchers[ablation.launcher],
        "hydra/hydra_logging=none",
        "run.wait=true",
        "run.progress=false",
        *map(swept, [*own, *ablation.words]),
    )


def swept(given: str) -> str:
    """The word, where only the variants know its setting as a sweep over one value.

    Hydra composes a multirun without what it sweeps over, so without the experiments, and would
    refuse there what they alone bring in.
    """
    try:
        composed("train", [given])
    except InputError:
        key, _, value = given.partition("=")
        return f"{key}=choice({value})"
    return given


def report_command(ablation: Ablation) -> list[str]:
    return program("scripts/report.py", str(ablation.folder))


def program(file: str, *words: str) -> list[str]:
    return [sys.executable, os.path.relpath(PROJECT / file), *words]


def shown(command: Sequence[str]) -> str:
    """A command as one types it."""
    return shlex.join(["python", *command[1:]])


# The steps


def run_ablation(ablation: Ablation, own: Sequence[str]) -> int:
    """Do what is not done yet; returns the exit status, 1 where a variant or a step failed."""
    began = time.monotonic()
    make_folder(ablation.folder)
    with alone(ablation.folder) as lock:
        if not ablation.brings_proposals:
            if step("1/4 RPN", rpn_command(ablation), lock):
                print(f"the RPN failed: {why_unfinished(ablation.run(ablation.rpn, 0))}")
                return 1
            if proposals_serve(ablation):
                print(f"2/4 proposals: there already, in {ablation.proposals}", flush=True)
            elif step("2/4 proposals", dump_command(ablation), lock):
                return 1
        title = f"3/4 {len(ablation.runs)} runs, {ablation.jobs} at once"
        status = step(title, variants_command(ablation, own), lock, ablation.runs)
        failed = {run: why for run in ablation.runs if (why := why_unfinished(run))}
        if status and not failed:
            print("the sweep ended with an error although every run finished; see above")
        if len(failed) == len(ablation.runs):
            print("no run finished, so there is nothing to report")
        elif step("4/4 report", report_command(ablation), lock):
            status = 1
    for run, why in failed.items():
        print(f"not finished: {run}: {why}")
    if failed:
        print("the same command tries them again")
    print(f"runs and report in {ablation.folder}; {spent(began)} in all")
    return 1 if failed or status else 0


def step(title: str, command: list[str], lock: IO[str], runs: Sequence[Path] = ()) -> int:
    """Run one command, with a bar that counts `runs`; returns its exit status."""
    began = time.monotonic()
    print(f"{title}: {shown(command)}", flush=True)
    with subprocess.Popen(command, pass_fds=[lock.fileno()]) as process:
        if runs:
            follow(process, runs)
        status = process.wait()
    print(f"{title}: {f'exit status {status} after' if status else 'took'} {spent(began)}")
    sys.stdout.flush()
    return status


def follow(process: "subprocess.Popen[bytes]", runs: Sequence[Path]) -> None:
    """Count the finished among `runs` until the process ends."""
    with tqdm(total=len(runs), initial=finished(runs), desc="runs", unit="run") as bar:
        while True:
            bar.update(finished(runs) - bar.n)
            try:
                process.wait(timeout=1.0)
                return
            except subprocess.TimeoutExpired:
                continue


def finished(runs: Sequence[Path]) -> int:
    return sum(why_unfinished(run) is None for run in runs)


def proposals_serve(ablation: Ablation) -> bool:
    """Whether the files there are of this RPN as it is now, and of the data as they are now."""
    checkpoint = load_checkpoint(ablation.run(ablation.rpn, 0) / "checkpoints" / "last.pt")
    words = [f"experiment={ablation.variants[0]}", *ablation.words, *proposal_words(ablation)]
    digest = weights_digest(checkpoint.model)
    try:
        build_data(composed("train", [*words, f"proposals.files.detector={digest}"]))
    except InputError:
        return False
    return True


def why_unfinished(run: Path) -> str | None:
    """The reason in one line, None for a finished run."""
    if (run / "metrics.json").is_file():
        return None
    try:
        return (run / "FAILED").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return "interrupted" if run.is_dir() else "not begun"


@contextmanager
def alone(folder: Path) -> Iterator[IO[str]]:
    """The family's lock, to be passed on to every process that works for it.

    Unlike a record lock, it lasts as long as any of them: where this process alone is killed, the
    next one waits for those that it left behind.
    """
    with (folder / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder}: waits for an earlier call, or what it left running", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def spent(began: float) -> str:
    seconds = time.monotonic() - began
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} minutes"


def arguments() -> argparse.Namespace:
    """The command line; words `key=value` may stand anywhere."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help="demo_quick, demo, nuclei, table2c ...")
    parser.add_argument("words", metavar="key=value", nargs="*", help="settings, see train.py")
    parser.add_argument(
        "--jobs", type=int, help="variants at once (default: about as many as cores; 1 with a GPU)"
    )
    parser.add_argument("--launcher", choices=LAUNCHERS, default="joblib")
    parser.add_argument("--seeds", nargs="+", help="instead of the file's, such as 0 1 2")
    parser.add_argument("--show", action="store_true", help="print the commands, run nothing")
    given = parser.parse_intermixed_args()
    seeds = [each for each in given.seeds or () if "=" not in each]
    if not all(seed.isdecimal() for seed in seeds) or (given.seeds and not seeds):
        parser.error("--seeds: whole numbers from 0, such as 0 1 2")
    if given.jobs is not None and given.jobs < 1:
        parser.error("--jobs: a whole number from 1")
    given.words += [each for each in given.seeds or () if "=" in each]
    given.seeds = tuple(dict.fromkeys(map(int, seeds)))
    return given


def main() -> int:
    """Command line; returns the exit status."""
    given = arguments()
    try:
        ablation = read_ablation(given.name)
        if given.seeds:
            ablation = replace(ablation, seeds=given.seeds)
        ablation, own = settled(ablation, given.words, given.launcher, given.jobs)
        if given.show:
            first = [] if ablation.brings_proposals else [rpn_command, dump_command]
            commands = [make(ablation) for make in first]
            commands += [variants_command(ablation, own), report_command(ablation)]
            print("\n".join(map(shown, commands)))
            return 0
        return run_ablation(ablation, own)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
