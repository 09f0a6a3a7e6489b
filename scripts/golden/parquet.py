"""Small Parquet files of each codec and of types that records may have, for `crates/qft-train/tests/parquet.rs`.

    python scripts/golden/parquet.py

Made with pyarrow 26.0.1 and polars 2.1.0.
"""

import datetime
import decimal
from pathlib import Path

import polars
import pyarrow as pa
import pyarrow.parquet as pq

OUT = Path(__file__).resolve().parents[2] / "crates/qft-train/tests/golden/parquet"

CHATS = [
    [("user", "Hi ä"), ("assistant", "Hello!")],
    [("system", "Be kind."), ("user", "Who?"), ("assistant", "Me.\n")],
    [("user", "Again"), ("assistant", "Yes " * 40)],
]
MESSAGES = [[{"role": role, "content": content} for role, content in chat] for chat in CHATS]

# A text to learn beside a column of each type.
TEXTS = ["one", "two"]
BESIDE = {
    "time": pa.array([datetime.datetime(2024, 7, 26, 1, 2, 3, 4000), None], pa.timestamp("us", tz="UTC")),
    "date": pa.array([datetime.date(2024, 7, 26), None], pa.date32()),
    "decimal": pa.array([decimal.Decimal("12.50"), None], pa.decimal128(10, 2)),
    "binary": pa.array([b"\x00\xff", None], pa.binary()),
    "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
    "list": pa.array([[1, None], []], pa.list_(pa.int32())),
    "struct": pa.array([{"x": 1.5, "y": None}, None], pa.struct([("x", pa.float64()), ("y", pa.string())])),
    "float": pa.array([float("nan"), float("inf")], pa.float32()),
    "half": pa.array([1.5, None], pa.float16()),
    "large": pa.array([2**64 - 1, 0], pa.uint64()),
    "dictionary": pa.array(["k", None]).dictionary_encode(),
    "nothing": pa.nulls(2),
}


def write(name, table, **options):
    pq.write_table(table, OUT / f"{name}.parquet", store_schema=False, **options)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    table = pa.table({"messages": MESSAGES, "id": [1, 2, 3]})
    for codec in ("none", "snappy", "gzip", "zstd", "lz4", "brotli"):
        write(codec, table, compression=codec)
    write("pages_of_version_2", table, compression="zstd", data_page_version="2.0")
    polars.DataFrame({"messages": MESSAGES, "id": [1, 2, 3]}).write_parquet(OUT / "polars.parquet")
    for name, column in BESIDE.items():
        if name != "nothing":
            write(f"beside_{name}", pa.table({"text": TEXTS, name: column}))
    write("large_text", pa.table({"text": pa.array(TEXTS, pa.large_string())}))
    write("dictionary_text", pa.table({"text": pa.array(TEXTS).dictionary_encode()}))
    write("missing_text", pa.table({"text": pa.array(["one", None])}))
    # Columns of other types under the name of the text.
    for name in ("time", "date", "decimal", "binary", "map", "list", "large", "nothing"):
        write(f"text_as_{name}", pa.table({"text": BESIDE[name].slice(0, 1)}))
    # Words as bytes without a mark that they are text, as some writers leave it out.
    write("text_without_mark", pa.table({"text": pa.array([text.encode() for text in TEXTS], pa.binary())}))
    turn = pa.struct([("role", pa.binary()), ("content", pa.large_binary())])
    chats = [[{field: text.encode() for field, text in said.items()} for said in chat] for chat in MESSAGES]
    write("chats_without_mark", pa.table({"messages": pa.array(chats, pa.list_(turn))}))
    files = sorted(OUT.glob("*.parquet"))
    print(f"{OUT}: {len(files)} files, {sum(file.stat().st_size for file in files)} bytes")


main()
