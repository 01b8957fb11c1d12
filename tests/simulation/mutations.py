"""The rules of exactly once, each broken by one change of the code's text. A simulation that does not notice one of them proves little."""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Mutation(NamedTuple):
    """What is written instead of what, in which module, and the rule that it breaks."""

    module: str
    rule: str
    old: str
    new: str


MUTATIONS = {
    "covered-too-much": Mutation(
        "projectors.reading",
        "a record at the watermark is not applied yet",
        "is None or offset < stored.offset",
        "is None or offset <= stored.offset",
    ),
    "covered-too-little": Mutation(
        "projectors.reading",
        "a record below the watermark is applied",
        "is None or offset < stored.offset",
        "is None or offset < stored.offset - 1",
    ),
    "no-running-maximum": Mutation(
        "projectors.reading",
        "a watermark is a running maximum",
        "expected.advanced(*mark)",
        "Watermark(mark.offset, mark.ts_ms, expected.topic_id, mark.run)",
    ),
    "checkpoint-of-what-was-fetched": Mutation(
        "projectors.projector",
        "a checkpoint goes to what was folded",
        "moved = [(reading, reading.folded) for reading in readings]",
        "moved = [(reading, reading.mark(reading.next + 1, reading.ts_ms)) for reading in readings]",
    ),
    "loss-adopted": Mutation(
        "projectors.reading", "after a loss all is read again from the lowest", "return outcome is Outcome.BEHIND", "return False"
    ),
    "batches-in-hand-kept": Mutation(
        "projectors.projector",
        "a batch that does not begin where reading goes on is thrown away",
        "if reading is None or batch.start != reading.next:",
        "if reading is None:",
    ),
    "batches-overtake": Mutation(
        "projectors.flights", "the batches of a partition are applied in their order", "if before is not None:", "if False:"
    ),
    "ahead-is-done": Mutation(
        "projectors.reading",
        "what someone else applied is adopted, and the rest is sent",
        "return judge(advance, stored) is Outcome.AHEAD",
        "return False",
    ),
    "behind-is-ahead": Mutation(
        "projectors.apply",
        "a stored watermark below the expected one is a loss",
        "return Outcome.AHEAD if stored.offset >= advance.expected.offset else Outcome.BEHIND",
        "return Outcome.AHEAD",
    ),
    "restart-from-the-highest": Mutation(
        "projectors.reading",
        "a restart goes on from the lowest watermark",
        "began = min(watermark.begins for",
        "began = max(watermark.begins for",
    ),
    "lower-pair-is-new": Mutation(
        "projectors.repeats",
        "a change with a lower pair came before",
        "if run is not None and pair < run.pair:",
        "if False:",
    ),
    "equal-pair-is-old": Mutation(
        "projectors.repeats",
        "pairs are not unique",
        "if key in seen:",
        "if run is not None and pair == run.pair:",
    ),
    "equal-pair-is-new": Mutation(
        "projectors.repeats",
        "what was seen at a pair came before",
        "if key in seen:",
        "if False:",
    ),
    "same-key-is-the-same": Mutation(
        "projectors.repeats",
        "at one pair a row may go and come",
        "(type(row), change.op)",
        '(type(row), "")',
    ),
    "only-the-lsn-compared": Mutation(
        "projectors.repeats",
        "LSNs go back between transactions that run side by side: the commit before comes first",
        "pair, run = change.pair, self.run",
        "pair, run = change.pair and (change.pair[0] and 1, change.pair[1]), self.run",
    ),
    "read-on-from-the-offset": Mutation(
        "schema.positions",
        "reading goes on from the start of the run: what was seen at its pair is not stored",
        "return self.offset if self.run is None else self.run.start",
        "return self.offset",
    ),
    "run-that-begins-later": Mutation(
        "projectors.reading",
        "a watermark has the run at its own offset, not a later one",
        "self._repeats.run)",
        "self._repeats.run and Run(self._repeats.run.pair, offset))",
    ),
    "repair-counts-repeats": Mutation(
        "projectors.replay",
        "a repair drops what the projector drops",
        "self._unseen(batch, repeats.told(changes) if",
        "self._unseen(batch, changes if",
    ),
    "cancelled-out-not-sent": Mutation(
        "projectors.fold",
        "what cancels out in a batch is sent all the same",
        "            deltas[key] = deltas.get(key, 0) + 1\n    return deltas",
        "            deltas[key] = deltas.get(key, 0) + 1\n    return {key: delta for key, delta in deltas.items() if delta}",
    ),
    "nothing-held-never-ends": Mutation(
        "projectors.building", "who has no lost shard left ends", "if not held or (level(self", "if held and (level(self"
    ),
    "lost-shard-under-its-old-build": Mutation(
        "projectors.building",
        "a lost shard gets a new build",
        "first_header(record, secrets.token_hex(2)) for shard in shards",
        "first_header(record, record.build) for shard in shards",
    ),
    "lost-shard-seen-too-early": Mutation(
        "projectors.building",
        "a lost shard is seen when it is level",
        "if not held or (level(self.record, headers_held, self._ends) and level(self.record, headers_held, self.record.promoted)):",
        "if True:",
    ),
    "promoted-before-level": Mutation(
        "projectors.building", "a generation is promoted when it is level", " and level(self.record, headers, self.record.level):", ":"
    ),
    "repair-of-what-is-behind": Mutation(
        "projectors.repair",
        "a repair folds up to the watermarks of the shard",
        "effects = replay.at(number, offsets)",
        "effects = replay.at(number, replay._read)",
    ),
    "claims-not-released": Mutation(
        "projectors.fold", "a name that is left is released", "effects.claims[Claim(name, old, key)] = None", "pass"
    ),
    "before-not-undone": Mutation(
        "projectors.fold", "an update undoes what was before", "deltas[key] = deltas.get(key, 0) - 1", "deltas[key] = deltas.get(key, 0)"
    ),
}


def broken(name: str) -> None:
    """From now on the module is imported with this mutation. Before anything of ours is imported."""
    mutation = MUTATIONS[name]
    if mutation.module in sys.modules:
        raise ValueError(f"{mutation.module} is imported already")
    sys.meta_path.insert(0, _Finder(mutation))


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, mutation: Mutation) -> None:
        self._mutation = mutation
        self._path = ROOT / (mutation.module.replace(".", "/") + ".py")

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self, origin=str(self._path)) if fullname == self._mutation.module else None

    def exec_module(self, module: ModuleType) -> None:
        text = self._path.read_text()
        if text.count(self._mutation.old) != 1:
            raise ValueError(f"{self._path} has {text.count(self._mutation.old)} times what is to be mutated: {self._mutation.old!r}")
        module.__file__ = str(self._path)
        exec(compile(text.replace(self._mutation.old, self._mutation.new), str(self._path), "exec"), module.__dict__)
