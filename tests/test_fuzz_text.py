"""Mutated text files: dataset.json, splits, manifests, provenance, plans, fingerprints, logs."""

import json
import math
import tomllib

from fuzzing import TOKENS, altered, bytes_of, json_of
from hypothesis import strategies as st
from raw_miniatures import make_dataset, make_pair
from small_runs import facts, tiny_run

from dataset_conversion.msd import read_names
from jdm.config.checks import validate
from jdm.config.files import flat, from_dict, read_toml, to_dict, to_toml
from jdm.config.settings import Config, Settings
from jdm.data.provenance import read_generator
from jdm.data.raw_dataset import RawDataset, check_dataset, read_dataset
from jdm.data.splits import fold_split
from jdm.evaluation.figures import read_losses
from jdm.export.folder import finished_records, read_manifest
from jdm.train.checkpoint import FINGERPRINT
from jdm.train.log import FIELDS, read_log
from jdm.train.prepare import prepare
from jdm.train.request import TrainRequest
from nnunet_integration.provenance import read_run


def test_dataset_json(tmp_path, monkeypatch, fuzz):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    folder = make_dataset(tmp_path, [make_pair("a"), make_pair("b", seed=1)])
    path = folder / "dataset.json"
    content = json.loads(path.read_text())
    explicit = {
        case: {"images": [f"imagesTr/{case}_0000.png"], "label": f"./labelsTr/{case}.png"} for case in ("a", "b")
    }

    def read(text: bytes) -> None:
        path.write_bytes(text)
        dataset = read_dataset(folder)
        assert sorted(dataset.labels.values()) == list(range(dataset.classes)) and dataset.classes > 1
        assert dataset.channel_names and all(isinstance(name, str) for name in dataset.channel_names)
        for case in dataset.cases:
            files = [*dataset.image_files(case), dataset.label_file(case)]
            assert all(f.resolve().is_relative_to(tmp_path.resolve()) for f in files)
        assert all(isinstance(finding.text, str) for finding in check_dataset(dataset))

    fuzz(json_of(content) | json_of({**content, "dataset": explicit}), read)


def test_splits_final_json(tmp_path, monkeypatch, fuzz):
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    cases = tuple(f"case_{i}" for i in range(6))
    dataset = RawDataset(tmp_path, 1, "Dataset001_X", ("a",), {"background": 0, "b": 1}, ".png", cases, (), {}, {})
    splits = [{"train": [c for c in cases if c != held], "val": [held]} for held in cases[:5]]

    def read(text: bytes) -> None:
        (tmp_path / "splits_final.json").write_bytes(text)
        for fold in range(6):
            training, validation = fold_split(dataset, fold)
            assert training and not set(training) & set(validation)
            assert {*training, *validation} <= set(cases)

    fuzz(json_of(splits), read)


RECORDS = [{"case_id": f"syn_{i:06d}", "seed": i, "attempt": 0, "foreground_share": {"a": 0.5}} for i in range(3)]


def test_manifest(tmp_path, fuzz):
    path = tmp_path / "manifest.jsonl"
    lines = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()
    one = altered(RECORDS[0]).map(lambda record: lines + json.dumps(record).encode())

    def read(text: bytes) -> None:
        path.write_bytes(text)
        assert all(isinstance(record["case_id"], str) for record in read_manifest(path))

    fuzz(one | bytes_of(lines, TOKENS), read, path.name)


def test_records_of_a_batch(tmp_path, fuzz):
    path = tmp_path / "batches" / "000000.json"
    path.parent.mkdir()

    def read(text: bytes) -> None:
        path.write_bytes(text)
        found = finished_records(tmp_path, 1)
        assert found is not None and all(isinstance(record, dict) for record in found)

    fuzz(json_of(RECORDS), read, path.name)


def test_provenance_and_run_files(tmp_path, fuzz):
    dataset = RawDataset(tmp_path, 1, "Dataset001_X", ("a",), {"background": 0, "b": 1}, ".png", ("a",), (), {}, {})
    content = {"generator": {"dataset": "Dataset002_Y", "fold": "0", "training_ids": ["a", "b"]}, "count": 3}

    def read(text: bytes) -> None:
        (tmp_path / "provenance.json").write_bytes(text)
        (tmp_path / "jdm_run.json").write_bytes(text)
        generator = read_generator(dataset)
        assert generator["training_ids"] and all(isinstance(case, str) for case in generator["training_ids"])
        assert isinstance(read_run(tmp_path), dict)

    fuzz(json_of(content), read)


def test_plan_toml(tmp_path, fuzz):
    text = to_toml(Settings(), dict.fromkeys(flat(to_dict(Settings())), "shown")).encode()

    def read(content: bytes) -> None:
        path = tmp_path / "plan.toml"
        path.write_bytes(content)
        settings = from_dict(Settings, read_toml(path))
        assert from_dict(Settings, tomllib.loads(to_toml(settings, {"train.steps": "shown"}))) == settings
        config = validate(Config(**vars(settings), facts=facts()))
        for part in (config.noise, config.augment, config.train):
            assert all(math.isfinite(v) for v in vars(part).values() if isinstance(v, float))

    places = [at for at, byte in enumerate(text) if byte == ord("=")]
    values = st.sampled_from([
        b"-1", b"0", b"nan", b"inf", b"[]", b"[1]", b"[0, 0]", b"[-8, 8]", b"'x'", b"true", b"1e400", b"{}",
        b"9" * 5000, b"1" + b"0" * 400, b"1979-05-27", b"[[1]]", b"[1.5]", b"'none'",
    ])  # fmt: skip

    def with_values(drawn: list[tuple[int, bytes]]) -> bytes:
        data = text
        for at, value in sorted(drawn, reverse=True):
            data = data[: at + 1] + b" " + value + data[data.index(b"\n", at) :]
        return data

    assigned = st.lists(st.tuples(st.sampled_from(places), values), min_size=1, max_size=3, unique_by=lambda d: d[0])
    fuzz(assigned.map(with_values) | bytes_of(text, TOKENS), read)


def test_fingerprint_json(real, fuzz):
    run = tiny_run(real, train={"steps": 1})
    path, content = run.folder / FINGERPRINT, to_dict(run.config.facts)

    def read(text: bytes) -> None:
        path.write_bytes(text)
        found = prepare(TrainRequest(real.name, "all", resume=True)).config.facts
        assert from_dict(type(found), to_dict(found)) == found

    fuzz(json_of(content), read)


def test_log_csv(tmp_path, fuzz):
    rows = [
        ",".join([str(step), "0.5", "1.25", "0.001", "", "0.75" if step % 2 else "nan", ""]) for step in range(1, 9)
    ]
    text = ("\r\n".join([",".join(FIELDS), *rows]) + "\r\n").encode()

    def read(content: bytes) -> None:
        (tmp_path / "log.csv").write_bytes(content)
        steps = [int(row["step"]) for row in read_log(tmp_path / "log.csv")]
        assert steps == list(range(steps[0], steps[0] + len(steps))) if steps else True
        columns = read_losses(tmp_path / "log.csv")
        assert all(math.isfinite(step) for step in columns["step"])

    fuzz(bytes_of(text, [*TOKENS, b"," * 200_000, b'"' + b"x" * 140_000]), read)


def test_decathlon_json(tmp_path, fuzz):
    content = {"name": "X", "modality": {"0": "CT", "1": "PET"}, "labels": {"0": "background", "1": "a", "2": "b"}}

    def read(text: bytes) -> None:
        (tmp_path / "dataset.json").write_bytes(text)
        names = read_names(tmp_path)
        assert names.channels is not None and all(isinstance(name, str) for name in names.channels)
        assert names.labels is not None and list(names.labels.values()) == list(range(len(names.labels)))

    fuzz(json_of(content), read, "dataset.json")
