"""Leaves out of a staged tree what its MicroPython never runs, before it is compiled for a board of little memory.

What is for CPython (`if compat.MICROPYTHON`) goes, then every module, function, class and method that nothing reaches
from where the program begins, and numbers take the place of their names. A method counts as reached wherever its name
is written behind a dot, or is a text (for getattr). All that remains is called as in the sources.
"""

import ast
import os

RUNTIME = "socket select errno os time struct sys".split()  # modules with numbers of their own
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (*FUNCTIONS, ast.ClassDef)
IMPORTS = (ast.Import, ast.ImportFrom)
FLAG = "MICROPYTHON"


class Folding(ast.NodeTransformer):
    """Takes the branches of MicroPython, and drops docstrings, annotations and what comes behind a return."""

    def visit_Name(self, node):
        return ast.Constant(True) if node.id == FLAG and isinstance(node.ctx, ast.Load) else node

    def visit_Attribute(self, node):
        self.generic_visit(node)
        return ast.Constant(True) if node.attr == FLAG else node

    def visit_UnaryOp(self, node):
        self.generic_visit(node)
        known = isinstance(node.op, ast.Not) and isinstance(node.operand, ast.Constant)
        return ast.Constant(not node.operand.value) if known else node

    def visit_BoolOp(self, node):
        self.generic_visit(node)
        ends = isinstance(node.op, ast.Or)  # a True ends an `or`, a False an `and`; the other changes nothing
        values = []
        for value in node.values:
            if not isinstance(value, ast.Constant) or not isinstance(value.value, bool):
                values.append(value)
            elif value.value is ends:
                values.append(value)
                break
        if not values:
            return ast.Constant(not ends)
        return values[0] if len(values) == 1 else ast.BoolOp(node.op, values)

    def visit_IfExp(self, node):
        self.generic_visit(node)
        return (node.body if node.test.value else node.orelse) if isinstance(node.test, ast.Constant) else node

    def visit_If(self, node):
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant):
            return node.body if node.test.value else node.orelse
        return node

    def visit_AnnAssign(self, node):
        return ast.Assign([node.target], node.value)

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_FunctionDef(self, node):
        self.generic_visit(node)
        node.returns = None
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def generic_visit(self, node):
        super().generic_visit(node)
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list):
                setattr(node, field, alive(block) or ([ast.Pass()] if field == "body" else []))
        return node


def alive(block):
    """Returns the statements of a block that can be reached and do something."""
    found = []
    for node in block:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) or isinstance(node, ast.Pass):
            continue
        found.append(node)
        if isinstance(node, (ast.Return, ast.Raise)):
            break
    return found


def bound(node):
    """Returns the names that a statement binds and does nothing else, () for one that has to stay."""
    if isinstance(node, DEFINITIONS):
        return (node.name,)
    if isinstance(node, IMPORTS):
        return tuple((alias.asname or alias.name).split(".")[0] for alias in node.names)
    simple = isinstance(node, ast.Assign) and not any(isinstance(part, ast.Call) for part in ast.walk(node.value))
    if simple and all(isinstance(target, ast.Name) for target in node.targets):
        return tuple(target.id for target in node.targets)
    return ()


def is_main(node):
    """Tells whether a statement is what a module does that is run and not imported."""
    return isinstance(node, ast.If) and any(getattr(part, "id", "") == "__name__" for part in ast.walk(node.test))


class Program:
    """What runs of some modules, from those it begins with: `used` has (module, name), `members` names behind a dot."""

    def __init__(self, trees, loaded, called):
        """`trees` are {name of a module: syntax tree}; `loaded`: modules that are found by a name put together.

        `called`: names that whoever imports those asks them for.
        """
        self.trees = trees
        self.loaded = loaded
        self.modules, self.used, self.members = set(), set(), set()
        self.scopes = {}  # module -> {name: statements that bind it}
        self.aliases = {}  # module -> {name: the module that it stands for}
        self.waiting = {}  # name -> (module, method) that runs once the name is used
        for module, tree in trees.items():
            scope = self.scopes[module] = {}
            for node in tree.body:
                for name in bound(node):
                    scope.setdefault(name, []).append(node)
            self.aliases[module] = aliases = {}
            for node in ast.walk(tree):
                if isinstance(node, IMPORTS):
                    aliases.update({name: there for name, there in self.imported(module, node) if there in trees})
            tree.body = [node for node in tree.body if not is_main(node)]
        for name in called:
            self.member(name)
        for module in loaded:
            self.module(module)

    def imported(self, module, node):
        """Yields (name that an import binds, full name of what it stands for)."""
        for alias in node.names:
            if isinstance(node, ast.Import):
                yield (
                    (alias.asname or alias.name).split(".")[0],
                    alias.name if alias.asname else alias.name.split(".")[0],
                )
                continue
            base = node.module or ""
            if node.level:
                package = module if self.is_package(module) else module.rpartition(".")[0]
                for _ in range(node.level - 1):
                    package = package.rpartition(".")[0]
                base = package + ("." + base if base else "")
            yield alias.asname or alias.name, base + "." + alias.name

    def is_package(self, module):
        return any(name.startswith(module + ".") for name in self.trees)

    def module(self, name):
        """A module is imported, and the packages that it is in."""
        while name:
            if name in self.trees and name not in self.modules:
                self.modules.add(name)
                for node in self.trees[name].body:
                    if not bound(node):
                        self.code(name, node)
                for member in list(self.members) if name in self.loaded else ():
                    self.name(name, member)
            name = name.rpartition(".")[0]

    def name(self, module, name):
        """A module's name is used."""
        if (module, name) not in self.used:
            self.used.add((module, name))
            for node in self.scopes[module].get(name, ()):
                self.statement(module, node)

    def statement(self, module, node):
        """A statement that binds a name runs."""
        if not isinstance(node, ast.ClassDef):
            self.code(module, node)
            return
        for base in node.bases:
            self.code(module, base)
        for part in node.body:
            names = bound(part)
            if isinstance(part, FUNCTIONS) and not (part.name.startswith("__") and part.name != "__repr__"):
                if part.name in self.members:
                    self.code(module, part)
                else:
                    self.waiting.setdefault(names[0], []).append((module, part))
            else:
                self.code(module, part)

    def code(self, module, node):
        """Code runs."""
        for part in ast.walk(node):
            if isinstance(part, IMPORTS):
                for _, there in self.imported(module, part):
                    if there in self.trees:
                        self.module(there)
                    elif there.rpartition(".")[0] in self.trees:
                        self.module(there.rpartition(".")[0])
                        self.name(*there.rpartition(".")[::2])
            elif isinstance(part, ast.Name):
                self.name(module, part.id)
            elif isinstance(part, ast.Attribute):
                self.member(part.attr)
                if isinstance(part.value, ast.Name) and part.value.id in self.aliases[module]:
                    self.name(self.aliases[module][part.value.id], part.attr)
            elif isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value.isidentifier():
                self.member(part.value)  # for getattr

    def member(self, name):
        """A name is used behind a dot."""
        if name not in self.members:
            self.members.add(name)
            for module, node in self.waiting.pop(name, ()):
                self.code(module, node)
            for module in self.loaded:
                if module in self.modules:
                    self.name(module, name)

    def kept(self, module):
        """Returns a module's statements without what nothing uses."""
        found = []
        for node in self.trees[module].body:
            names = bound(node)
            if isinstance(node, IMPORTS):
                pairs = zip(node.names, names)
                node.names = [alias for alias, name in pairs if (module, name) in self.used]
                if not node.names:
                    continue
            elif names and not any((module, name) in self.used for name in names):
                continue
            if isinstance(node, ast.ClassDef):
                node.body = [part for part in node.body if not self.idle(part)] or [ast.Pass()]
            found.append(node)
        return found

    def idle(self, node):
        """Tells whether nobody calls a method."""
        special = isinstance(node, FUNCTIONS) and node.name.startswith("__") and node.name != "__repr__"
        return isinstance(node, FUNCTIONS) and not special and node.name not in self.members


class Numbers(ast.NodeTransformer):
    """Puts whole numbers in the place of names that are bound once, to that, in the whole tree."""

    def __init__(self, trees):
        bound, numbers = {}, {}
        for tree in trees:
            for node in ast.walk(tree):
                for name in binds(node):
                    bound[name] = bound.get(name, 0) + 1
            for node in tree.body:
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and len(node.targets) == 1:
                    if isinstance(node.value, ast.Constant) and type(node.value.value) is int:
                        numbers[node.targets[0].id] = node.value.value
        self.numbers = {name: value for name, value in numbers.items() if bound[name] == 1 and name == name.upper()}

    def visit_Name(self, node):
        known = isinstance(node.ctx, ast.Load) and node.id in self.numbers
        return ast.Constant(self.numbers[node.id]) if known else node

    def visit_Attribute(self, node):
        self.generic_visit(node)
        known = isinstance(node.value, ast.Name) and node.value.id not in RUNTIME and node.attr in self.numbers
        return ast.Constant(self.numbers[node.attr]) if known else node


def binds(node):
    """Returns the names that one node of a tree binds, imports aside."""
    if isinstance(node, DEFINITIONS):
        return [node.name]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        return [node.id]
    if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
        return [node.attr]
    return []


def prune(folder, loaded, called, absent=()):
    """Rewrites the Python files below a folder as one program, and removes those of modules that it never imports.

    It is that of the modules that are `loaded` by a name put together (a package's name with ".*" stands for all in
    it), which are `called` by these names. Modules of packages that are `absent` are never imported.
    """
    trees, paths = {}, {}
    for where, _, names in os.walk(folder):
        for path in [os.path.join(where, name) for name in names if name.endswith(".py")]:
            module = os.path.relpath(path, folder)[: -len(".py")].replace(os.sep, ".")
            module = module[: -len(".__init__")] if module.endswith(".__init__") else module
            if any((module + ".").startswith(name + ".") for name in absent):
                os.remove(path)
                continue
            with open(path) as file:
                trees[module], paths[module] = Folding().visit(ast.parse(file.read())), path
    numbers = Numbers(trees.values())
    for tree in trees.values():
        numbers.visit(tree)
    program = Program(trees, matching(trees, loaded), called)
    for module, path in paths.items():
        if module not in program.modules:
            os.remove(path)
            continue
        trees[module].body = program.kept(module)
        with open(path, "w") as file:
            file.write(ast.unparse(ast.fix_missing_locations(trees[module])) + "\n")


def matching(modules, wanted):
    """Returns the names of modules that are wanted; raises KeyError for one that is not there."""
    found = []
    for name in wanted:
        package = name[: -len(".*")]
        if name.endswith(".*"):
            found += [module for module in sorted(modules) if module.rpartition(".")[0] == package]
        elif name in modules:
            found.append(name)
        else:
            raise KeyError(name)
    return found
