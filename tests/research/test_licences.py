"""Licence due diligence over made-up packages: agreement, vagueness, parts and real disagreement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from celeriac.errors import CeleriacError
from celeriac.orchestration.research.licences.agents import locate
from celeriac.orchestration.research.licences.names import label, names_in
from celeriac.orchestration.research.licences.obligations import category_of, obligations_of
from celeriac.orchestration.research.licences.texts import recognise

from .run_plan import Context, run, run_plan

MIT = """Permission is hereby granted, free of charge, to any person obtaining a copy of this software, to deal in
the Software without restriction. The above copyright notice and this permission notice shall be included in all copies.
"""
BSD3 = """Redistribution and use in source and binary forms, with or without modification, are permitted:
1. Redistributions of source code must retain the above copyright notice.
2. Redistributions in binary form must reproduce the above copyright notice.
3. Neither the name of the holder nor its contributors may be used to endorse or promote products.
"""
BSD2 = BSD3[: BSD3.index("3. ")]
GPL3 = "GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007\n\nPreamble\n"


def package(folder: Path, name: str, headers: str, files: dict[str, str] | None = None, readme: str = "") -> None:
    info = folder / f"{name}-1.0.dist-info"
    (info / "licenses").mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{headers}\n{readme}")
    record = [f"{info.name}/METADATA,,"]
    for path, text in (files or {}).items():
        target = info / "licenses" / path if "/" not in path else folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        record.append(f"{target.relative_to(folder)},,")
    (info / "RECORD").write_text("\n".join(record))


def looked_at(folder: Path) -> dict[str, dict[str, Any]]:
    done = run_plan("licences", "", [str(folder)], str(folder / "out"), publish=False)
    return {found["name"]: found for found in done["analyze"]}


def test_a_vague_name_is_made_exact_by_the_licence_text_and_is_no_conflict(tmp_path: Path) -> None:
    package(tmp_path, "vague", "License: BSD\nClassifier: License :: OSI Approved :: BSD License\n", {"LICENSE": BSD3})
    found = looked_at(tmp_path)["vague"]
    assert found["licence"] == "BSD-3-Clause"
    assert found["conflict"] is None
    assert "BSD" in found["notes"][0]


@pytest.mark.parametrize(
    ("headers", "text", "severity"),
    [
        ("License-Expression: MIT\n", BSD3, "high"),
        ("License: MIT\n", GPL3, "high"),
        ("License: MIT\nClassifier: License :: OSI Approved :: BSD License\n", MIT, "high"),
        ("License-Expression: BSD-2-Clause\n", BSD3, "medium"),
        (
            "License: GPL-3.0-only\n"
            "Classifier: License :: OSI Approved :: GNU General Public License v3 or later (GPLv3+)\n",
            "",
            "low",
        ),
        (
            "License-Expression: MIT\nClassifier: License :: OSI Approved :: MIT License\n"
            "Classifier: License :: OSI Approved :: Apache Software License\n",
            MIT,
            "low",
        ),
    ],
)
def test_papers_that_disagree_are_a_conflict_with_its_severity(
    tmp_path: Path, headers: str, text: str, severity: str
) -> None:
    package(tmp_path, "odd", headers, {"LICENSE": text} if text else {})
    conflict = looked_at(tmp_path)["odd"]["conflict"]
    assert conflict["severity"] == severity
    assert len(conflict["values"]) == 2


def test_a_readme_that_says_otherwise_is_a_conflict(tmp_path: Path) -> None:
    readme = "# odd\n\n## License\n\nThis project is licensed under the Apache License 2.0.\n"
    package(tmp_path, "odd", "License-Expression: MIT\n", {"LICENSE": MIT}, readme)
    conflict = looked_at(tmp_path)["odd"]["conflict"]
    assert {value["value"] for value in conflict["values"]} >= {"MIT", "Apache-2.0"}


def test_vendored_licences_are_parts_and_never_conflicts(tmp_path: Path) -> None:
    files = {"LICENSE": MIT, "LICENSE_zed.txt": BSD2, "whole/_vendor/gnu/COPYING": GPL3}
    package(tmp_path, "whole", "License-Expression: MIT\n", files)
    found = looked_at(tmp_path)["whole"]
    assert found["licence"] == "MIT"
    assert found["conflict"] is None
    assert [part["licence"] for part in found["contains"]] == ["BSD-2-Clause", "GPL-3.0 (only or later not said)"]
    assert any("strong copyleft" in note for note in found["attention"])


def test_two_licence_files_and_a_readme_that_lets_one_choose_are_an_or(tmp_path: Path) -> None:
    files = {"LICENSE-APACHE": "Licensed under the Apache License, Version 2.0\n", "LICENSE-MIT": MIT}
    readme = (
        "# dual\n\n## License\n\nLicensed under either of Apache License, Version 2.0 or MIT license at your option.\n"
    )
    package(tmp_path, "dual", "", files, readme)
    found = looked_at(tmp_path)["dual"]
    assert found["licence"] == "Apache-2.0 OR MIT"
    assert found["category"] == "permissive"
    assert found["conflict"] is None


def test_without_a_word_of_choice_all_licences_apply_and_the_report_says_so(tmp_path: Path) -> None:
    package(tmp_path, "two", "", {"LICENSE-GPL": GPL3, "LICENSE-MIT": MIT})
    found = looked_at(tmp_path)["two"]
    assert found["licence"] == "GPL-3.0 (only or later not said) AND MIT"
    assert any("no paper says" in note for note in found["attention"])


def test_some_files_under_one_and_some_under_another_are_no_choice(tmp_path: Path) -> None:
    readme = "# mix\n\n## License\n\nSome files are under MPL 2.0 and some\nunder your choice of MIT.\n"
    package(tmp_path, "mix", "", {}, readme)
    assert looked_at(tmp_path)["mix"]["licence"] == "MPL-2.0 AND MIT"


def test_a_choice_for_part_of_the_code_is_said_to_be_one(tmp_path: Path) -> None:
    readme = "# part\n\n## License\n\nContributions after 2017: either Apache 2.0 or BSD 3-Clause License.\n"
    package(tmp_path, "part", "", {}, readme)
    found = looked_at(tmp_path)["part"]
    assert found["licence"] == "Apache-2.0 OR BSD-3-Clause"
    assert any("does not hold for all of the code" in note for note in found["attention"])


def test_a_package_without_a_licence_is_named(tmp_path: Path) -> None:
    package(tmp_path, "bare", "License: UNKNOWN\n")
    done = run_plan("licences", "", [str(tmp_path)], "unused", publish=False)
    assert done["crosscheck"]["without"] == ["bare 1.0"]
    assert "no paper declares a licence" in str(done["synthesise"]["sections"])


def test_a_folder_without_packages_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CeleriacError, match="no installed package"):
        run(locate, {"folders": [str(tmp_path)]}, Context(""))
    with pytest.raises(CeleriacError, match="does not exist"):
        run(locate, {"folders": [str(tmp_path / "none")]}, Context(""))


def test_a_damaged_distribution_is_skipped_with_a_reason(tmp_path: Path) -> None:
    package(tmp_path, "good", "License-Expression: MIT\n", {"LICENSE": MIT})
    (tmp_path / "broken-1.0.dist-info").mkdir()
    done = run_plan("licences", "", [str(tmp_path)], "unused", publish=False)
    assert [reason for path, reason in done["locate"]["skipped"] if "broken" in path] == ["vanished while reading"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("New BSD", ["BSD-3-Clause"]),
        ("BSD", ["BSD (clauses not said)"]),
        ("GPLv3+", ["GPL-3.0-or-later"]),
        ("GNU Lesser General Public License v3 (LGPLv3)", ["LGPL-3.0 (only or later not said)"]),
        ("MIT/Apache-2.0", ["MIT", "Apache-2.0"]),
        ("Dual License", []),
        ("Mozilla Public License 2.0 (MPL 2.0)", ["MPL-2.0"]),
    ],
)
def test_a_licence_name_means_what_people_mean_by_it(name: str, expected: list[str]) -> None:
    assert [label(options) for options in names_in(name)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MIT, "MIT"),
        (MIT.split(" The above")[0], "MIT-0"),
        (BSD2, "BSD-2-Clause"),
        (BSD3, "BSD-3-Clause"),
        (
            "# Permission to use, copy, modify, and/or distribute this software for any\n# purpose "
            "with or without fee is"
            " hereby granted, provided that the above\n# copyright notice appear in all copies.",
            "ISC",
        ),
        (
            "Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is"
            " hereby granted.",
            "0BSD",
        ),
        (
            "under the terms of the GNU General Public License as published by the Free Software Foundation; either"
            " version 2 of the License, or (at your option) any later version.",
            "GPL-2.0-or-later",
        ),
        ("This is free and unencumbered software released into the public domain.", "Unlicense"),
        (
            "The author disclaims copyright to this source code. Here is a blessing:",
            "blessing",
        ),
    ],
)
def test_a_licence_text_is_known_by_its_phrases(text: str, expected: str) -> None:
    assert [label(hit.options) for hit in recognise(text)] == [expected]


def test_a_file_with_many_texts_gives_each_with_its_line() -> None:
    hits = recognise(f"{MIT}\n\nParts are under:\n\n{BSD3}")
    assert [(label(hit.options), hit.line) for hit in hits] == [("MIT", 1), ("BSD-3-Clause", 7)]


def test_the_category_of_a_choice_is_the_mildest_and_of_a_sum_the_strictest() -> None:
    assert category_of("MIT OR GPL-3.0-only") == "permissive"
    assert category_of("MIT AND GPL-3.0-only") == "strong copyleft"
    assert category_of("MPL-2.0 AND (Apache-2.0 OR MIT)") == "weak copyleft"
    assert obligations_of("0BSD") == []
    assert obligations_of("Nonsense-1.0") is None
