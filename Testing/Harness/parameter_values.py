"""How typed values lie in a vtkMRMLScriptedModuleNode: the same keys and texts as Slicer's own serializers write.

Written for these tests; kinds: int, float, str, bool, pathlib paths, enumerations, MRML nodes, Optional and unions,
lists. Anything else raises, as an unknown type does in Slicer.
"""

from __future__ import annotations

import enum
import pathlib
import types
import typing
from collections.abc import MutableSequence
from dataclasses import dataclass

import slicer
import slicer.util


class Validator:
    def validate(self, value) -> None:
        raise NotImplementedError


class NotNone(Validator):
    def validate(self, value):
        if value is None:
            raise ValueError("Value must not be None")


class IsInstance(Validator):
    def __init__(self, classtype):
        self.classtype = classtype

    def validate(self, value):
        if value is not None and not isinstance(value, self.classtype):
            raise TypeError(f"Value must be of type '{self.classtype}', is type '{type(value)}' value '{value}'")


class WithinRange(Validator):
    def __init__(self, minimum, maximum):
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value):
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within range [{self.minimum}, {self.maximum}], is {value}")


class Minimum(Validator):
    def __init__(self, minimum):
        self.minimum = minimum

    def validate(self, value):
        if value < self.minimum:
            raise ValueError(f"Value must be greater than {self.minimum}, is {value}")


class Maximum(Validator):
    def __init__(self, maximum):
        self.maximum = maximum

    def validate(self, value):
        if value > self.maximum:
            raise ValueError(f"Value must be less than {self.maximum}, is {value}")


class Choice(Validator):
    def __init__(self, choices):
        self.choices = choices

    def validate(self, value):
        if value not in self.choices:
            raise ValueError(f"Value is {value}, but must be in one of the following: {self.choices}")


class Exclude(Validator):
    def __init__(self, excludedValues):
        self.excludedValues = excludedValues

    def validate(self, value):
        if value in self.excludedValues:
            raise ValueError(f"Value is {value}, which is excluded")


class Default:
    def __init__(self, value=None, *, generator=None):
        self._value, self._generator = value, generator

    @property
    def value(self):
        return self._generator() if self._generator else self._value


@dataclass
class Decimals:
    value: int


@dataclass
class SingleStep:
    value: float


def splitAnnotations(annotated) -> tuple[type, tuple]:
    """The bare type and what ``Annotated`` adds to it."""
    if typing.get_origin(annotated) is typing.Annotated:
        return annotated.__origin__, annotated.__metadata__
    return annotated, ()


def findAnnotation(annotations, kind):
    return next((annotation for annotation in annotations if isinstance(annotation, kind)), None)


def isUnion(type_) -> bool:
    return typing.get_origin(type_) in (typing.Union, types.UnionType)


def isNodeClass(type_) -> bool:
    return isinstance(type_, type) and issubclass(type_, slicer.vtkMRMLNode)


def nodeClassesOf(annotated) -> tuple[str, ...]:
    """Class names of a node type, or of a union of node types and None; empty for any other type."""
    bare = splitAnnotations(annotated)[0]
    members = typing.get_args(bare) if isUnion(bare) else (bare,)
    members = [splitAnnotations(m)[0] for m in members if m is not type(None)]
    return tuple(m.__name__ for m in members) if all(isNodeClass(m) for m in members) else ()


class Value:
    """Reads and writes one value under a name; checks it first."""

    def __init__(self, validators=(), default=None):
        self.validators, self._default = list(validators), default

    def default(self):
        return self._default

    def validate(self, value):
        for validator in self.validators:
            validator.validate(value)

    def isIn(self, node, name):
        return bool(node.HasParameter(name))

    def write(self, node, name, value):
        self.validate(value)
        node.SetParameter(name, self.toText(value))

    def read(self, node, name):
        return self.fromText(node.GetParameter(name))

    def remove(self, node, name):
        node.UnsetParameter(name)

    def toText(self, value):
        return str(value)

    def fromText(self, text):
        return text


class NumberValue(Value):
    def __init__(self, kind):
        super().__init__([NotNone(), IsInstance((int, float) if kind is float else int)], kind(0))
        self.fromText = kind


class TextValue(Value):
    def __init__(self):
        super().__init__([NotNone(), IsInstance(str)], "")


class PathValue(Value):
    def __init__(self, kind):
        super().__init__([NotNone(), IsInstance(kind)], kind())
        self.fromText = kind


class BoolValue(Value):
    def __init__(self):
        super().__init__([NotNone(), IsInstance(bool)], False)

    def toText(self, value):
        return "True" if value else "False"

    def fromText(self, text):
        return text == "True"


class EnumValue(Value):
    def __init__(self, kind):
        super().__init__([IsInstance(kind), NotNone()], next(iter(kind)))
        self._kind = kind

    def toText(self, value):
        return value.name

    def fromText(self, text):
        try:
            return self._kind[text]
        except KeyError:
            raise ValueError(f"Found {text!r} in parameter node but it is not a name in {self._kind!r}") from None


class NodeValue(Value):
    def __init__(self, kind):
        super().__init__([IsInstance(kind)], None)

    def write(self, node, name, value):
        self.validate(value)
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)

    def read(self, node, name):
        return node.GetNodeReference(name)

    def remove(self, node, name):
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)


class NoneValue(Value):
    def __init__(self):
        super().__init__([], None)

    def validate(self, value):
        if value is not None:
            raise ValueError("Value must be None")

    def toText(self, value):
        return "True"

    def fromText(self, text):
        return None


class UnionValue(Value):
    """``Optional[X]`` and ``X | Y``: each member type has its own numbered key."""

    def __init__(self, members):
        self._members = [valueFor(member)[0] for member in members]
        optional = len(self._members) == 2 and isinstance(self._members[1], NoneValue)
        super().__init__([], None if optional else self._members[0].default())

    def isIn(self, node, name):
        return any(member.isIn(node, f"{name}.{index}") for index, member in enumerate(self._members))

    def write(self, node, name, value):
        self.validate(value)
        for index, member in enumerate(self._members):
            if (value is None) != isinstance(member, NoneValue):
                continue
            try:
                member.validate(value)
            except (TypeError, ValueError):
                continue
            with slicer.util.NodeModify(node):
                self.remove(node, name)
                member.write(node, f"{name}.{index}", value)
            return
        raise TypeError(f"Unable to write value '{value}' of type '{type(value)}'")

    def read(self, node, name):
        for index, member in enumerate(self._members):
            if member.isIn(node, f"{name}.{index}"):
                return member.read(node, f"{name}.{index}")
        raise KeyError(f"Unable to find value for name: {name}")

    def remove(self, node, name):
        for index, member in enumerate(self._members):
            member.remove(node, f"{name}.{index}")


class ObservedList(MutableSequence):
    """A list that writes itself back when it changes. Equal to a list, but not one: as in Slicer."""

    def __init__(self, owner, node, name, items):
        self._owner, self._node, self._name, self._items = owner, node, name, items

    def _save(self):
        self._owner.write(self._node, self._name, self._items)

    def __getitem__(self, index):
        return self._items[index]

    def __setitem__(self, index, item):
        self._items[index] = item
        self._save()

    def __delitem__(self, index):
        del self._items[index]
        self._save()

    def __len__(self):
        return len(self._items)

    def insert(self, index, item):
        self._items.insert(index, item)
        self._save()

    def __eq__(self, other):
        return self._items == (other._items if isinstance(other, ObservedList) else other)

    __hash__ = None

    def __repr__(self):
        return f"ObservedList({self._items})"


class ListValue(Value):
    def __init__(self, member):
        super().__init__([], None)
        self._member, _ = valueFor(member)

    def default(self):
        return []

    def isIn(self, node, name):
        return bool(node.HasParameter(f"{name}.len"))

    def write(self, node, name, value):
        self.validate(value)
        items = list(value)
        for item in items:
            self._member.validate(item)
        with slicer.util.NodeModify(node):
            self.remove(node, name)
            for index, item in enumerate(items):
                self._member.write(node, f"{name}.{index}", item)
            node.SetParameter(f"{name}.len", str(len(items)))

    def read(self, node, name):
        length = int(node.GetParameter(f"{name}.len"))
        return ObservedList(self, node, name, [self._member.read(node, f"{name}.{i}") for i in range(length)])

    def remove(self, node, name):
        for index in range(int(node.GetParameter(f"{name}.len") or 0)):
            self._member.remove(node, f"{name}.{index}")
        node.UnsetParameter(f"{name}.len")


def _bareValue(bare) -> Value:
    if bare in (int, float):
        return NumberValue(bare)
    if bare is str:
        return TextValue()
    if bare is bool:
        return BoolValue()
    if bare is type(None):
        return NoneValue()
    if isinstance(bare, type) and issubclass(bare, pathlib.PurePath):
        return PathValue(bare)
    if isinstance(bare, type) and issubclass(bare, enum.Enum):
        return EnumValue(bare)
    if isNodeClass(bare):
        return NodeValue(bare)
    if isUnion(bare):
        return UnionValue(typing.get_args(bare))
    if typing.get_origin(bare) is list and typing.get_args(bare):
        return ListValue(typing.get_args(bare)[0])
    raise TypeError(f"Unable to create serializer for type: {bare} (the stand-in knows no other kind)")


def valueFor(annotated) -> tuple[Value, tuple]:
    """The reader and writer of an annotated type, and the annotations it was made from."""
    bare, annotations = splitAnnotations(annotated)
    value = _bareValue(bare)
    value.validators += [annotation for annotation in annotations if isinstance(annotation, Validator)]
    return value, annotations
