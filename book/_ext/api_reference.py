"""The API pages: signatures as they are written, links to each name."""

import ast
import inspect
import re
import textwrap

from docutils import nodes
from sphinx.domains.python import PyObject, PythonDomain
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

PACKAGE = "hyperpinn_eqx"
NAME = re.compile(r"(hpx\.)?([A-Za-z_][\w.]*)(\(.*\))?")
# `hpx.fit` and `@hpx.condition` as Pygments writes them.
CODE = re.compile(
    r'<span class="n(?:">|d">@)hpx</span><span class="o">\.</span>'
    r'<span class="n">(\w+)</span>'
)


def signature(app, what, name, obj, options, arguments, returns):
    """Types as in the code, `Float[Array, 'n d']`, not what they mean."""
    if what not in ("class", "function", "method"):
        return None
    source = textwrap.dedent(inspect.getsource(obj))
    (tree,) = ast.parse(source).body
    if isinstance(tree, ast.FunctionDef):
        return written(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return written(node)[0], None
    return fields(tree, obj), None


class Unmarked(ast.NodeTransformer):
    """Drops from a type what only says how it is checked."""

    def visit_Subscript(self, node):
        self.generic_visit(node)
        mark = getattr(node.value, "id", None)
        if mark == "Annotated":
            return node.slice.elts[0]
        return node.slice if mark in ("Finite", "MayBeEmpty") else node


def text(node):
    """The code of a node; ' d', which keeps linters quiet, is 'd'."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    plain = ast.unparse(Unmarked().visit(node))
    return re.sub(r"' (\w+)'", r"'\1'", plain)


def written(tree):
    """The arguments and the result of a function's definition."""
    tree.args.args = [
        a for a in tree.args.args if a.arg not in ("self", "cls")
    ]
    return f"({text(tree.args)})", tree.returns and text(tree.returns)


def fields(tree, cls):
    """The arguments that a class has from its fields."""
    types = {
        node.target.id: text(node.annotation)
        for node in tree.body
        if isinstance(node, ast.AnnAssign)
    }
    found = inspect.signature(cls).parameters.values()
    shown = [
        f"{p.name}: {types[p.name]}"
        + (f" = {p.default!r}" if p.default is not p.empty else "")
        for p in found
    ]
    return None if inspect.isabstract(cls) else f"({', '.join(shown)})"


class NamesAsLinks(SphinxPostTransform):
    """Links `hpx.fit` in the text of any page, and `fit` in the API's."""

    default_priority = 5

    def run(self, **options):
        objects = self.env.get_domain("py").objects
        here = self.env.docname
        for literal in list(self.document.findall(nodes.literal)):
            match = NAME.fullmatch(literal.astext())
            if match is None or isinstance(literal.parent, nodes.title):
                continue
            prefix, name, _ = match.groups()
            found = objects.get(f"{PACKAGE}.{name}") or objects.get(name)
            if found and (prefix or here.startswith("api/")):
                link = make_refnode(
                    self.app.builder,
                    here,
                    found.docname,
                    found.node_id,
                    literal.copy(),
                )
                link[0].extend(literal.children)
                literal.replace_self(link)


def link_code(app, page, template, context, doctree):
    """Links `hpx.fit` in the code of any page."""
    objects = app.env.get_domain("py").objects

    def link(match):
        found = objects.get(f"{PACKAGE}.{match[1]}")
        if found is None:
            return match[0]
        uri = app.builder.get_relative_uri(page, found.docname)
        return f'<a href="{uri}#{found.node_id}">{match[0]}</a>'

    if "body" in context:
        context["body"] = CODE.sub(link, context["body"])


def setup(app):
    """Called by Sphinx."""
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    # Signatures look for classes, and an alias stands for one.
    PythonDomain.object_types["type"].roles += ("class",)
    app.connect("html-page-context", link_code)
    app.connect("autodoc-process-signature", signature)
    app.add_post_transform(NamesAsLinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
