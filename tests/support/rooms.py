"""The plan of the house: every room's floor, and the rules that hold the files to it.

`imports.py` reads the arrows of the source tree, `test_imports.py` applies the rules to it. Each
rule returns sentences that say where the fault is and what to do; none, where all is well.
"""

from __future__ import annotations

from support.imports import Arrow, SourceTree

HOUSE = {
    "envs_registry": "__init__",
    "paravt_env": """__init__ < common < video, sandbox < span < task < crop, subtitles, budget
        < spaces < protocol < rewards < tasksets, show < settings < episode < env < vector
        < wrappers""",
    "agents": """__init__ < base, config < algorithm, text < scripted, model, chat < vllm, sb3
        < paragrpo""",
    "train": """__init__ < common < packing, adapters < config < distributed < rollout
        < learner, evaluation < workers, sft, report < loop, datagen, viewer < lab < commands < cli
        < __main__""",
}
"""Rooms by floor, from the ground up. A room is a sub-package or a file of its package; it imports
rooms of lower floors and packages that stand before its own, and nobody on its own floor."""

NEIGHBOURS = {("agents.base", "agents.config"), ("agents.config", "agents.base")}
"""The agent's interface and its settings may name each other's types."""

DOORS = ("agents/paragrpo.py",)
"""A page to read and to run: nobody imports it, and its main block may start the command line."""

HEAVY = {
    "ale_py", "av", "datasets", "decord", "jsonargparse", "openenv", "peft", "PIL", "pyarrow",
    "pygame", "rich", "scenedetect", "stable_baselines3", "starlette", "torch",
    "torchcodec", "transformers", "uvicorn", "verifiers", "vllm", "wandb",
}  # fmt: skip
"""Slow to load or not always installed: the one reason for an import inside a function."""

NO_TORCH = ("envs_registry", "paravt_env")
TORCH = {"torch", "torchvision", "transformers"}
TORCH_ALLOWED = {"paravt_env/video/readers/torchcodec.py": {"torch"}}
"""A back end that is an extra of its own: its decoder hands out torch's tensors."""


def floors(house: dict[str, str]) -> dict[str, tuple[int, int]]:
    """Package and floor of each room, both counted from the ground."""
    return {
        f"{package}.{room.strip()}": (number, floor)
        for number, (package, plan) in enumerate(house.items())
        for floor, rooms in enumerate(plan.split("<"))
        for room in rooms.split(",")
    }


FLOORS = floors(HOUSE)


def room_of(module: str) -> str:
    """`package.room` of a module; what a package holds itself is the room `__init__`."""
    package, _, rest = module.partition(".")
    return f"{package}.{rest.split('.')[0] or '__init__'}"


def ours(arrow: Arrow) -> bool:
    return arrow.target.split(".")[0] in HOUSE


def misplaced(tree: SourceTree) -> list[str]:
    """Files in no known room, rooms without a file, imports of files that are not there."""
    there = {room_of(module) for module in tree.files}
    said = [
        f"{path} is in no known room: give {room_of(module)} a floor in {__name__}, or move it"
        for module, path in tree.files.items()
        if room_of(module) not in FLOORS
    ]
    said += [f"HOUSE names {room}, where no file is" for room in sorted(FLOORS.keys() - there)]
    said += [
        f"{tree.place(arrow)} imports {arrow.target}, which is no file of ours"
        for arrow in tree.arrows
        if ours(arrow) and arrow.target not in tree.files and arrow.when != "named"
    ]
    return said


def wrong_way(tree: SourceTree) -> list[str]:
    """Arrows that lead upward, or to another room of the same floor."""
    said = []
    for arrow in tree.arrows:
        source, target = room_of(arrow.source), room_of(arrow.target)
        # the registry's names are Gymnasium's entry points: nothing of theirs is loaded by it
        registered = arrow.when == "named" and source == "envs_registry.__init__"
        if not ours(arrow) or source == target or registered or (source, target) in NEIGHBOURS:
            continue
        if {source, target} <= FLOORS.keys() and FLOORS[target] >= FLOORS[source]:
            same = FLOORS[target] == FLOORS[source]
            way = "beside it on its floor" if same else "on a later floor"
            verb = "names" if arrow.when == "named" else "imports"
            said.append(
                f"{tree.place(arrow)} {verb} {arrow.target}: {target} is {way} "
                f"(move what {source} needs to a lower room, or hand it in)"
            )
    return said


def circles(tree: SourceTree) -> list[str]:
    """Files that need each other, whenever they import each other."""
    return [
        f"a circle of {len(tied)} files, the shortest: "
        + " -> ".join([*(tree.place(arrow) for arrow in way), tree.files[way[0].source]])
        for tied, way in tree.circles()
    ]


def needlessly_late(tree: SourceTree) -> list[str]:
    """Imports inside functions that put off nothing heavy which the file does not load anyway."""
    said = []
    for arrow in tree.arrows:
        if arrow.when == "called" and tree.runs(arrow):
            loaded = tree.loads[arrow.source]
            if not (set().union(*(tree.loads[m] for m in tree.runs(arrow))) - loaded) & HEAVY:
                why = (
                    "is loaded with the file already"
                    if arrow.target in loaded
                    else "loads nothing heavy that the file does not load anyway"
                )
                said.append(
                    f"{tree.place(arrow)} imports {arrow.target} inside a function, though it "
                    f"{why}: import it at the top, and where that makes a circle, cut the circle"
                )
    return said


def of_the_lab(tree: SourceTree) -> list[str]:
    """Arrows into the lab that do not come from a command."""
    allowed = ("train.lab", "train.commands")
    return [
        f"{tree.place(arrow)} imports {arrow.target}: only train/commands may ask the lab"
        for arrow in tree.arrows
        if room_of(arrow.target) == "train.lab" and room_of(arrow.source) not in allowed
    ]


def through_a_door(tree: SourceTree) -> list[str]:
    """Arrows to a page that nobody imports."""
    doors = {module for module, path in tree.files.items() if path in DOORS}
    return [
        f"{tree.place(arrow)} imports {arrow.target}, which is a door: nobody imports it"
        for arrow in tree.arrows
        if arrow.target in doors
    ]


def with_torch(tree: SourceTree) -> list[str]:
    """Imports of torch in packages that work without it."""
    return [
        f"{tree.place(arrow)} imports {arrow.target}: {arrow.source.split('.')[0]} works without it"
        for arrow in tree.arrows
        if arrow.source.split(".")[0] in NO_TORCH
        and arrow.when != "named"
        and arrow.target.split(".")[0] in TORCH - TORCH_ALLOWED.get(tree.files[arrow.source], set())
    ]


RULES = (
    misplaced, wrong_way, circles, needlessly_late, of_the_lab, through_a_door, with_torch,
)  # fmt: skip
