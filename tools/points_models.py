"""The section of ``docs/models.md`` that says which architectures have no model of points, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flowzoo.manifest.read import Entry
from tools.cells import noun, table
from tools.families import by_family

HEADING = "## Models of points"

REASONS: Mapping[str, str] = {
    "nice": "Its networks see flattened images, so that nothing in them needs pixels, and a vector could take the "
    "image's place; but its config has an `image_shape` and no `dims`, and no such model is built.",
    "realnvp": "Its masks are the colours of a checkerboard and halves of channels, its networks convolutions over an "
    "image.",
    "glow": "Each level begins with a squeeze of 2x2 pixels, and its networks are 3x3 convolutions.",
    "flowpp": "It couples columns, checkerboards or channels of an image, with convolutions and attention over pixels.",
    "jet": "Its couplings split the patches of an image or their channels, and see them with a vision transformer.",
    "tarflow": "Its transformers see tokens, which the numbers of a vector could be, too; but its tokens are square "
    "patches of an `image_shape`, and no such model is built.",
    "pixelcnn": "It gives a probability to each grey level of a pixel, given those above and to the left: points "
    "have no levels.",
    "idf": "It maps integers to integers; points are real numbers.",
    "fvae": "Its encoder and decoder are convolutions between squeezes of 2x2 pixels.",
}
"""Why an architecture takes images alone; each was read in its plugin, and a test tries to build it for vectors."""


def points_models(entries: Sequence[Entry]) -> str:
    """The section.

    Args:
        entries: The models, with and without weights.
    """
    with_points, without = [], []
    for members in by_family(entries).values():
        for architecture in dict.fromkeys(entry.architecture for entry in members):
            own = [
                entry for entry in members if entry.architecture == architecture and noun(entry) == "vectors"
            ]
            if shipped := [entry for entry in own if entry.weights is not None]:
                with_points += [f"[`{entry.name}`](models/{entry.name}.md)" for entry in shipped]
            else:
                why = (
                    "Takes vectors; no model of points has weights yet." if own else REASONS.get(architecture)
                )
                without.append((architecture, why or "No reason was stated."))
    if not with_points:
        return ""
    return (
        f"{HEADING}\n\nWith weights: {', '.join(with_points)}.\n\nThe other architectures have none. No config of "
        "theirs takes vectors (`dims`): their figures are of images.\n\n"
        f"{table(('architecture', 'why it has no model of points'), without)}\n"
    )
