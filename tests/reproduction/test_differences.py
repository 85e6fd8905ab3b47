from infopro.reproduction import differences, unrecorded

HERE = {
    "source_hash": "aa",
    "data_hash": "dd",
    "train_images": 48,
    "environment": {
        "device": "Xeon",
        "threads": 2,
        "cpu_capability": "AVX512",
        "python": "3.11.7",
        "source": {"commit": "c1"},
        "versions": {"torch": "2.14.1", "numpy": "2.4.6", "infopro": "0.1.0"},
        "libraries": {},
        "variables": {"MKL_CBWR": "AVX2", "OMP_NUM_THREADS": "2"},
    },
}


def like(record, **environment):
    return {**record, "environment": {**record["environment"], **environment}}


def test_nothing_differs_from_itself():
    assert differences(HERE, HERE) == [] and unrecorded(HERE, HERE) == []


def test_what_decides_the_bits_is_named_with_both_values():
    there = like(HERE, threads=1, versions={"torch": "2.13.0"}, variables={"MKL_CBWR": "COMPATIBLE"})
    assert differences(there, HERE) == [
        "threads: 1 there, 2 here",
        "torch: 2.13.0 there, 2.14.1 here",
        "MKL_CBWR: COMPATIBLE there, AVX2 here",
    ]
    assert differences(like(HERE, variables={}), HERE) == ["MKL_CBWR: none there, AVX2 here"]
    assert differences({**HERE, "data_hash": "d"}, HERE) == ["data: d there, dd here"]


def test_a_commit_counts_where_the_source_is_not_known_to_be_the_same():
    there = like(HERE, source={"commit": "c0"})
    assert differences(there, HERE) == []
    assert differences({**there, "source_hash": "a"}, HERE) == [
        "infopro's source: a there, aa here",
        "infopro's commit: c0 there, c1 here",
    ]
    assert differences(like(HERE, source=None), HERE) == []  # of an installed wheel


def test_older_records_know_less():
    old = {"environment": {"device": "Xeon", "threads": 2, "versions": {"torch": "2.14.1"}}}
    assert differences(old, HERE) == []
    assert unrecorded(old, HERE) == [
        "infopro's source",
        "infopro's commit",
        "data",
        "number of training images",
        "vector instructions",
        "python",
        "libraries",
        "variables",
    ]
    assert "threads" in unrecorded({}, HERE)
