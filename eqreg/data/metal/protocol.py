"""Every number of a simulated data set in one YAML file.

Taught in: notebooks/14
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ...checks import one_line
from ...extras import require
from ...physics.ct import FanBeam, ParallelBeam, Protocol, Scanner, open_beam, syndeeplesion
from ...physics.ct.geometry import Geometry
from ...physics.ct.materials import Material, check_material, named
from .place import SITES

_FORMAT = "eqreg ct protocol 1"
_VOLTAGES = (80.0, 140.0)


@dataclass(frozen=True)
class Tube:
    """Voltage in kV, reference energy in keV, and cm of each filter."""

    kvp: float = 120.0
    reference: float = 70.0
    filters: Mapping[str, float] = field(default_factory=lambda: {"aluminium": 0.39})


@dataclass(frozen=True)
class Metal:
    """What is put in: kinds of implants, materials (none: those usual for each kind), scans of each slice."""

    implants: tuple[str, ...] = tuple(SITES)
    materials: tuple[str, ...] = ()
    per_slice: int = 1


@dataclass(frozen=True)
class Recipe:
    """A protocol: all that decides a data set besides the slices and the seed.

    Args:
        geometry: of the scanner. Its pixel is the one of the physics: in the published data a patient is
            15 cm wide, so that metal does not take all photons.
        field_mm: that the image shows, mm of the patient per side; None fits every slice as a whole.
        tube, scan, metal: spectrum, detection and reconstruction, implants.
        materials: of one's own, parts by mass and density in g/cm^3.

    Raises:
        ValueError: a number outside its range, an unknown material or kind of implant; the message says which.
    """

    geometry: Geometry = field(default_factory=syndeeplesion)
    field_mm: float | None = 400.0
    tube: Tube = field(default_factory=Tube)
    scan: Protocol = Protocol(fbp="published")
    metal: Metal = Metal()
    materials: Mapping[str, Material] = field(default_factory=dict)

    def __post_init__(self) -> None:
        low, high = _VOLTAGES
        if not low <= self.tube.kvp <= high:
            raise ValueError(f"tube.kvp: expected {low:g} to {high:g} kV, got {self.tube.kvp:g}")
        if self.field_mm is not None and not 10 <= self.field_mm <= 2000:
            raise ValueError(f"field_mm: expected 10 to 2000 mm, or null, got {self.field_mm:g}")
        for name, material in self.materials.items():
            check_material(name, material)
        for name in self.metal.materials:
            if named(name, self.materials) in ("water", "bone"):
                raise ValueError(f"metal.materials: expected a metal, got {name!r}")
        for kind in self.metal.implants:
            if kind not in SITES:
                raise ValueError(f"metal.implants: expected among {', '.join(SITES)}, got {kind!r}")
        if self.metal.per_slice < 1 or not self.metal.implants:
            raise ValueError("metal: expected at least one kind of implant and one scan per slice")

    @property
    def metals(self) -> tuple[str, ...]:
        """The materials under the names of the tables."""
        return tuple(named(name, self.materials) for name in self.metal.materials)

    def scanner(self) -> Scanner:
        """The scanner; its matrices come from the cache or are built."""
        beam = open_beam(
            self.tube.kvp, self.tube.reference, filters=self.tube.filters, materials=self.materials
        )
        return Scanner(self.geometry, beam, self.scan)

    def to_yaml(self) -> str:
        """As text; :func:`read_recipe` reads it back."""
        kind = "fan" if isinstance(self.geometry, FanBeam) else "parallel"
        content = {
            "format": _FORMAT,
            "field_mm": self.field_mm,
            "geometry": {"beam": kind, **asdict(self.geometry)},
            "tube": _plain(self.tube),
            "scan": _plain(self.scan),
            "metal": _plain(self.metal),
            "materials": {
                name: {"density": density, "parts": dict(parts)}
                for name, (parts, density) in self.materials.items()
            },
        }
        yaml = require("yaml", extra="ct")
        return str(yaml.safe_dump(content, sort_keys=False))


def read_recipe(name: str | Path) -> Recipe:
    """A protocol by name, ``"syndeeplesion"``, or of a YAML file; what the file leaves out is as there.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no YAML, an unknown key, a value outside its range; the message names the file and the key.
        ImportError: without PyYAML (``pip install "eqreg[ct]"``).
    """
    if str(name) == "syndeeplesion":
        return Recipe()
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"--geometry: expected syndeeplesion or a YAML file, found no file {path}"
        )
    try:
        return parse_recipe(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {one_line(error)}") from error


def parse_recipe(text: str) -> Recipe:
    """A protocol of the text that :meth:`Recipe.to_yaml` makes.

    Raises:
        ValueError: no YAML, an unknown key, a value outside its range; the message names the key.
    """
    yaml = require("yaml", extra="ct")
    try:
        return _recipe(yaml.safe_load(text))
    except (TypeError, yaml.YAMLError) as error:
        raise ValueError(str(error)) from error


def _recipe(content: Any) -> Recipe:
    content = _mapping(content, "a protocol")
    if content.pop("format", _FORMAT) != _FORMAT:
        raise ValueError(f"format: expected {_FORMAT!r}")
    known = {f.name for f in fields(Recipe)}
    if unknown := sorted(set(content) - known):
        raise ValueError(f"{unknown[0]}: unknown; expected among {', '.join(sorted(known))}")
    found: dict[str, Any] = {}
    if "field_mm" in content:
        width = content["field_mm"]
        found["field_mm"] = None if width is None else _number(width, "field_mm")
    if "geometry" in content:
        found["geometry"] = _geometry(_mapping(content["geometry"], "geometry"))
    for key, kind, usual in (
        ("tube", Tube, Tube()),
        ("scan", Protocol, Recipe.scan),
        ("metal", Metal, Metal()),
    ):
        if key in content:
            given = _typed(kind, _mapping(content[key], key), key)
            found[key] = kind(**{**vars(usual), **given})
    if "materials" in content:
        own = _mapping(content["materials"], "materials")
        found["materials"] = {name: _material(name, value) for name, value in own.items()}
    # The published reconstruction is one for the published kind of scanner.
    flat = isinstance(found.get("geometry"), FanBeam) and not (
        found["geometry"].curved or found["geometry"].short
    )
    if "geometry" in found and not flat and "fbp" not in content.get("scan", {}):
        scan = found.get("scan", Recipe.scan)
        found["scan"] = Protocol(**{**vars(scan), "fbp": "textbook"})
    return Recipe(**found)


def _geometry(content: dict[str, Any]) -> Geometry:
    beam = content.pop("beam", "fan")
    if beam not in ("fan", "parallel"):
        raise ValueError(f"geometry.beam: expected fan or parallel, got {beam!r}")
    if beam == "fan":
        return FanBeam(**{**vars(syndeeplesion()), **_typed(FanBeam, content, "geometry")})
    usual = {"size": 416, "views": 640, "bins": 591, "pixel": syndeeplesion().pixel}
    return ParallelBeam(**{**usual, **_typed(ParallelBeam, content, "geometry")})


def _material(name: str, value: Any) -> Material:
    content = _mapping(value, f"materials.{name}")
    if set(content) != {"density", "parts"}:
        raise ValueError(
            f"materials.{name}: expected density and parts, got {', '.join(content) or 'nothing'}"
        )
    parts = _mapping(content["parts"], f"materials.{name}.parts")
    numbers = {e: _number(p, f"materials.{name}.parts.{e}") for e, p in parts.items()}
    return check_material(name, (numbers, _number(content["density"], f"materials.{name}.density")))


def _typed(kind: Any, content: dict[str, Any], where: str) -> dict[str, Any]:
    """Values in the types of a dataclass, unknown keys refused."""
    types = {f.name: str(f.type) for f in fields(kind)}
    found: dict[str, Any] = {}
    for key, value in content.items():
        at = f"{where}.{key}"
        if key not in types:
            raise ValueError(f"{at}: unknown; expected among {', '.join(types)}")
        if types[key] == "float":
            found[key] = _number(value, at)
        elif types[key] == "int":
            found[key] = int(_number(value, at, whole=True))
        elif types[key] == "bool":
            if not isinstance(value, bool):
                raise ValueError(f"{at}: expected true or false, got {value!r}")
            found[key] = value
        elif types[key] == "str":
            found[key] = str(value)
        elif types[key].startswith("tuple"):
            if not isinstance(value, list):
                raise ValueError(f"{at}: expected a list, got {value!r}")
            found[key] = tuple(str(v) for v in value)
        else:
            numbers = _mapping(value, at)
            found[key] = {k: _number(v, f"{at}.{k}") for k, v in numbers.items()}
    return found


def _number(value: Any, where: str, *, whole: bool = False) -> float:
    # YAML 1.1 reads 2e7 as text: a number needs a dot and a sign there, which nobody remembers.
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or (whole and number != int(number)):
        raise ValueError(f"{where}: expected a {'whole ' if whole else ''}number, got {value!r}")
    return number


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected keys with values, got {type(value).__name__}")
    return {str(k): v for k, v in value.items()}


def _plain(settings: Any) -> dict[str, Any]:
    return {
        key: list(v) if isinstance(v, tuple) else dict(v) if isinstance(v, Mapping) else v
        for key, v in vars(settings).items()
    }
