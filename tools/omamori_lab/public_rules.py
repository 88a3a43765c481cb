"""Rules of others as they are published, many of them: what an engine has to carry, whatever a policy would choose.

For benches of loading and switching. What a box would really get of them is `product_rules`' matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omamori_signatures.catalogue import read_catalogue
from omamori_signatures.errors import FeedError
from omamori_signatures.rule_lines import read_rule_lines

from .errors import SetupError
from .product_rules import rule_files
from .rule_set import RuleSet, generate_rules
from .settings import TREE

_SOURCE = "et-open"  # its ids are read, and its lists of addresses in the form of rules are not


def obtain_public_rules(directories: Sequence[Path], wanted: int) -> RuleSet:
    """Return `wanted` rules: active ones, then those that their authors switched off, then generated ones.

    Of an id the newest revision counts. Which of them an engine loads is not asked here.

    Raises:
        SetupError: A directory holds no rules, or more files than it should.
    """
    if not directories:
        return generate_rules(wanted)
    newest: dict[int, tuple[int, bool, str]] = {}
    try:
        source = read_catalogue(TREE / "signatures" / "sources.toml").find(_SOURCE)
        for path in (path for directory in directories for path in rule_files(directory)):
            for line in read_rule_lines(source, path, lambda *_: None):
                rule = line.rule
                known = newest.get(rule.sid)
                if known is None or known[0] < rule.revision:
                    newest[rule.sid] = (rule.revision, line.is_active, rule.render())
    except FeedError as err:
        raise SetupError(f"rules for the bench: {err}", hint=err.hint or None) from err
    if not newest:
        raise SetupError("no rules there", hint="give directories with *.rules files or archives of them")
    active = [text for _revision, is_active, text in newest.values() if is_active]
    spare = [text for _revision, is_active, text in newest.values() if not is_active]
    chosen = [*active, *spare][:wanted]
    origin = f"{min(len(active), wanted)} active rules of public rule sets"
    if len(chosen) > len(active):
        origin += f", {len(chosen) - len(active)} that their authors switched off"
    text = "".join(f"{rule}\n" for rule in chosen).encode()
    if missing := wanted - len(chosen):
        text += generate_rules(missing).text
        origin += f", {missing} generated"
    return RuleSet(text=text, count=wanted, origin=origin)
