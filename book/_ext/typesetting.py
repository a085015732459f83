"""Keeps a comma or a full stop on the line of the formula before it."""

import re

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

PUNCTUATION = re.compile(r"[.,:;!?)\]]+")


class GluePunctuation(SphinxPostTransform):
    """Puts both into one box: else a line may break after a formula."""

    default_priority = 900

    def run(self, **kwargs):
        for formula in list(self.document.findall(nodes.math)):
            text = formula.next_node(descend=False, siblings=True)
            if not isinstance(text, nodes.Text):
                continue
            if marks := PUNCTUATION.match(text):
                glued = nodes.inline("", "", classes=["glued"])
                formula.replace_self(glued)
                glued += [formula, nodes.Text(marks.group())]
                text.parent.replace(text, nodes.Text(text[marks.end() :]))


def setup(app):
    """Called by Sphinx."""
    app.add_post_transform(GluePunctuation)
    return {"parallel_read_safe": True}
