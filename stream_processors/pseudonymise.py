"""pseudonymise: the only reader of the identified zone. Splits each record into tokens and generalised attributes.

A person record becomes one `linkage.identity` (tokens, no attribute) and one `linkage.activity` (attributes, no token);
an event record becomes one `linkage.activity`. Both stay in the partition that they came from, which is the subject's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl
import pyarrow as pa

from schemas import contracts, wire
from schemas.codec import Decoded, arrow_schema, decode_each, decode_older, encode
from schemas.contracts import Contract
from schemas.registry import SchemaIds, UnknownSchemaError
from stream_processors import generalise, quarantine
from stream_processors.areas import Areas
from stream_processors.arrow import one_batch
from stream_processors.enquiry.opening import Opener
from stream_processors.epochs import Epochs
from stream_processors.erasure import eraser, overdue, unmatched
from stream_processors.erasure.eraser import Eraser
from stream_processors.erasure.overdue import SourceExpiry
from stream_processors.erasure.reading import received
from stream_processors.erasure.suppression import Ordered, Suppressed, subjects_of
from stream_processors.erasure.unmatched import Unmatched
from stream_processors.ledger import Deletion
from stream_processors.matching.catalogue import Catalogue
from stream_processors.matching.encodings import Encoder
from stream_processors.matching.normalise import normalise, postcode
from stream_processors.matching.tokens import tokenise
from stream_processors.refs import Refs
from stream_processors.retention_policy import RetentionPolicy, expires_on
from stream_processors.runtime.account import ATTEMPTS, BATCH_HEADER, is_one, publications
from stream_processors.runtime.partition import partitions_of
from stream_processors.runtime.processor import Declaration
from stream_processors.runtime.records import Inputs, Outputs
from stream_processors.runtime.state import View

PSEUDONYMISE = Declaration(
    name="pseudonymise",
    by="subject id",
    reads=("identified.*", *eraser.READS, *overdue.READS, *unmatched.READS),
    writes=(
        "linkage.identity",
        "linkage.activity",
        "linkage.enquiry",
        "identified.*.quarantine",
        quarantine.TOPIC,
        "identified.*",  # tombstones for whom an order erases (ADR 20), what has expired (ADR 25), unmatched (ADR 37)
        *eraser.WRITES,
    ),
    keeps=(*eraser.TABLES, *overdue.TABLES, *unmatched.TABLES),
    recalls=(*eraser.READS, *overdue.READS, *unmatched.READS),
    headers=True,
)
"""Header of a record that was put back from quarantine: how often. It comes along if the record fails again."""

_FORM = 4  # of what is said; another makes a worker say all anew
LARGEST_VALUE_BYTES = 1_000_000
_IDENTITY = contracts.contract("linkage/identity")
_ACTIVITY = contracts.contract("linkage/activity")
_OF_AN_EPOCH = ("epoch", "blocks", "tokens", "statements", "encodings")


Headers = list[tuple[str, bytes]]


@dataclass(frozen=True)
class _Bad:
    """A record that failed: where in the batch, the class of the error, the field at fault."""

    row: int
    error: str
    field: str | None = None


class Pseudonymise:
    """Stateless but for who is refused and what day it is, which it reads at each start: what goes out is a function of
    each record, the keys and that. A failed record takes back its key's output, and so does one that is refused."""

    declaration = PSEUDONYMISE

    def __init__(
        self,
        epochs: Epochs,
        refs: Refs,
        catalogue: Catalogue,
        policy: RetentionPolicy,
        schema_ids: SchemaIds,
        partitions: int,
        areas: Areas,
        opener: Opener | None = None,
        eraser: Eraser | None = None,
        expiry: SourceExpiry | None = None,
        windows: Unmatched | None = None,
    ) -> None:
        generalise.check()
        self._refs, self._catalogue = refs, catalogue
        self._epochs = [
            (keys, Encoder(catalogue, keys, encodings=catalogue.near is not None))
            for keys in (epochs.leads, epochs.also)
            if keys is not None
        ]
        self._opener, self._eraser, self._expiry, self._windows = opener, eraser, expiry, windows
        self.version = f"epoch {epochs.label}, catalogue {catalogue.label}, policy {policy.digest}, form {_FORM}"
        self._policy, self._ids, self._partitions = policy, schema_ids, partitions
        self._areas = areas

    def absorb(self, view: View, inputs: Sequence[Inputs]) -> set[bytes]:
        """Who is refused, what day it is, and of whom nobody was found."""
        if self._eraser is not None:
            self._eraser.absorb(view, inputs)
        if self._expiry is not None:
            self._expiry.absorb(view, inputs)
        if self._windows is not None:
            self._windows.absorb(view, inputs)
        return set()

    def everything(self, view: View) -> set[bytes]:  # noqa: ARG002
        """Nothing is kept."""
        return set()

    def settle(self, view: View, touched: Iterable[bytes], inputs: Sequence[Inputs]) -> Outputs:  # noqa: ARG002
        """Records of `identified.<supplier>.<dataset>` to identities, activities and quarantine.

        And orders to erase, and days that pass, to tombstones of them.
        """
        out = Outputs()
        if self._expiry is not None:
            self._expiry.sweep(view, out)
        if self._windows is not None:
            self._windows.sweep(view, inputs, out)
        suppressed = None
        if self._eraser is not None:
            self._eraser.settle(view, inputs, out)
            suppressed = self._eraser.suppressed(view)
        for batch in inputs:
            if batch.topic in PSEUDONYMISE.recalls:
                continue
            _, supplier, dataset = batch.topic.split(".")
            if dataset == contracts.ENQUIRY:
                if self._opener is not None:
                    self._opener.take(batch, out)
                continue
            self._take(view, supplier, dataset, batch, suppressed or None, inputs, out)
        return out

    def _take(
        self,
        view: View,
        supplier: str,
        dataset: str,
        batch: Inputs,
        suppressed: Suppressed | None,
        inputs: Sequence[Inputs],
        out: Outputs,
    ) -> None:
        contract = contracts.identified(supplier, dataset)
        day = None
        if self._expiry is not None:
            batch, day = self._expiry.put_back(view, batch, out), self._expiry.day(view)
        bad: list[_Bad] = []
        gone: list[int] = []
        framed: dict[int, list[int]] = {}
        for row, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
            if key is None:
                bad.append(_Bad(row, "NullKey"))
            elif value is None:
                gone.append(row)
            elif len(value) > LARGEST_VALUE_BYTES:
                bad.append(_Bad(row, "RecordTooLarge"))
            else:
                try:
                    framed.setdefault(wire.schema_id(value), []).append(row)
                except wire.WireError:
                    bad.append(_Bad(row, "BadMagicByte"))
        # Who is refused is, whether the record can be read or not: a copy in quarantine would be one more.
        refused = self._refused_by_key(supplier, batch, suppressed) if suppressed else {}
        by_details: dict[str, Ordered] = {}
        taken: list[tuple[list[int], pl.DataFrame]] = []
        for id_, rows in framed.items():
            try:
                bodies = [(batch.values[r] or b"")[wire.HEADER_BYTES :] for r in rows]
                found = self._decode(id_, bodies, contract, batch.topic)
            except UnknownSchemaError:
                bad += [_Bad(r, "UnknownSchemaId") for r in rows]
                continue
            bad += [_Bad(rows[i], "Undecodable") for i in found.bad]
            frame = pl.DataFrame(one_batch(found.batch))
            good_rows = [rows[i] for i in found.good]
            if suppressed:
                mine, of = self._refused_by_content(supplier, contract, frame, batch, good_rows, suppressed)
                refused, by_details = {**mine, **refused}, {**of, **by_details}
                keep = [i for i, r in enumerate(good_rows) if r not in refused]
                frame, good_rows = frame[keep], [good_rows[i] for i in keep]
            frame, good_rows, failed = self._check(contract, frame, good_rows, batch)
            bad += failed
            if good_rows:
                taken.append((good_rows, frame))
        # In log order, so that the last record of a key has the last word.
        live = [r for rows, _ in taken for r in rows]
        bad = [b for b in bad if b.row not in refused]
        why = self._why(supplier, dataset, batch, [b.row for b in bad], refused, self._expired(batch, gone, day))
        retract = self._readable(list(dict.fromkeys([*gone, *why])), batch)
        last = {k: r for r, k in enumerate(batch.keys) if k is not None}
        if batch.superseded:
            last = {k: r for k, r in last.items() if batch.offsets[r] not in batch.superseded}
        retract = [r for r in retract if last.get(batch.keys[r]) == r]  # type: ignore[arg-type]
        for rows, frame in taken:
            keep = [i for i, r in enumerate(rows) if last.get(batch.keys[r]) == r]  # type: ignore[arg-type]
            part = frame if len(keep) == len(rows) else frame[keep]
            self._say(supplier, dataset, contract, part, [rows[i] for i in keep], batch, out)
        self._retract(supplier, dataset, contract, retract, batch, [why.get(r, []) for r in retract], out)
        self._quarantine(supplier, dataset, contract, bad, gone, batch, out)
        out.count("accepted", len(live) + len(gone))
        out.count("quarantined", len(bad))
        came = [r for r in refused if batch.values[r] is not None]
        if refused and self._eraser is not None:
            assert suppressed is not None
            keys = [k for r in came if (k := batch.keys[r]) is not None and last.get(k) == r]
            out.emit(batch.topic, batch.partition, keys, [None] * len(keys))
            out.count("refused", len(came))
            self._eraser.refuse_subjects(view, by_details, suppressed, out)
        if self._expiry is not None and day is not None:
            over = self._expiry.over(batch, contract, day, [b.row for b in bad])
            for rows, frame in taken:
                over |= self._expiry.over_of(batch, contract, day, rows, frame)
            ends = {k: batch.offsets[r] for k, r in last.items() if r in over}
            self._expiry.end(view, batch.topic, ends, out)
        if self._windows is not None and dataset == "person" and supplier in contracts.DATASETS:
            self._windows.take(view, batch, set(last.values()) & set(live), out)
            self._windows.follow(view, batch, set(last.values()) & set(gone), inputs, out)
        all_last = len(last) == len(batch.keys)
        replaced = [] if all_last else [r for r in live if last.get(batch.keys[r]) != r]  # type: ignore[arg-type]
        told = {"accepted": live, "deletions": gone, "quarantined": [b.row for b in bad]}
        _tally(batch, {**told, "refused": came, "replaced": replaced}, out)

    def _refused_by_key(self, supplier: str, batch: Inputs, suppressed: Suppressed) -> dict[int, Ordered]:
        """Rows, tombstones too, whose key names a subject that is refused, and by which order."""
        assert self._eraser is not None
        subjects = pl.DataFrame({"subject": subjects_of(_texts(batch.keys).to_list())})
        hashes = subjects.select(self._eraser.keys.subject(supplier, pl.col("subject"))).to_series()
        return suppressed.rulings("subject", hashes)

    def _refused_by_content(
        self,
        supplier: str,
        contract: Contract,
        frame: pl.DataFrame,
        batch: Inputs,
        rows: list[int],
        suppressed: Suppressed,
    ) -> tuple[dict[int, Ordered], dict[str, Ordered]]:
        """Rows that say they are of a subject, or of a person, who is refused; and subjects who are by their
        details."""
        assert self._eraser is not None
        keys = self._eraser.keys
        own = subjects_of(_texts(batch.keys[r] for r in rows).to_list())
        named = frame.select(said=pl.col(contract.subject_field), own=pl.lit(own), row=pl.lit(pl.Series(rows)))
        # Whom the key names is looked up already; here, whom the content names under another's key.
        others = named.filter(pl.col("said").ne_missing(pl.col("own")))
        hashes = others.select(keys.subject(supplier, pl.col("said"))).to_series()
        refused = {others["row"][i]: by for i, by in suppressed.rulings("subject", hashes).items()}
        of: dict[str, Ordered] = {}
        if contract.record_field is None and suppressed.any_token:
            by_token = suppressed.rulings("token", keys.tokens(frame))
            both = named[list(by_token)].select(keys.subject(supplier, pl.col(n)).alias(n) for n in ("said", "own"))
            for (i, by), hashes_of in zip(by_token.items(), both.iter_rows(), strict=True):
                refused.setdefault(rows[i], by)
                of |= {h: by for h in hashes_of if h is not None}
        return refused, of

    def _why(
        self,
        supplier: str,
        dataset: str,
        batch: Inputs,
        bad: list[int],
        refused: dict[int, Ordered],
        expired: dict[int, Headers],
    ) -> dict[int, Headers]:
        """What retention is told of each row that takes its key's output back, by row; of a supplier's own tombstone
        there is nothing to tell."""
        headers = {r: Deletion("correction", by=supplier).headers for r in bad} | expired
        for r, by in refused.items():
            at = (batch.topic, batch.offsets[r], supplier, dataset) if batch.values[r] is not None else None
            headers[r] = Deletion.ordered(by.reason, by.by, by.order_id, at).headers
        return headers

    def _expired(self, batch: Inputs, gone: list[int], day: date | None) -> dict[int, Headers]:
        """What retention is told of tombstones that were written here because a day had passed."""
        told: dict[int, Headers] = {}
        for row in gone:
            window = overdue.window_of(batch, row)
            if window is not None:
                told[row] = Deletion("window", as_of=window).headers
            elif day is not None and overdue.mark_of(batch, row) is not None:
                told[row] = Deletion("expiry", as_of=day).headers
        return told

    def _decode(self, id_: int, bodies: list[bytes], contract: Contract, topic: str) -> Decoded:
        if id_ == self._ids.schema_id(topic):
            return decode_each(bodies, contract)
        return decode_older(bodies, self._ids.writer(id_), contract)

    def _check(
        self, contract: Contract, frame: pl.DataFrame, rows: list[int], batch: Inputs
    ) -> tuple[pl.DataFrame, list[int], list[_Bad]]:
        """Key, partition and domains of decoded rows."""
        subject, record = contract.subject_field, contract.record_field
        said = _texts(batch.keys[r] for r in rows)
        key = pl.concat_str([pl.col(subject), pl.col(record)], separator="|") if record else pl.col(subject)
        home = pl.Series(partitions_of(frame[subject], self._partitions))
        faults_by_field: list[tuple[pl.Expr, str]] = [
            (key.ne_missing(pl.lit(said)), "KeyMismatch:"),
            *((_unusable_id(name), f"BadId:{name}") for name in (subject, record) if name),
            (pl.lit(home) != batch.partition, f"WrongPartition:{subject}"),
        ]
        for field in contract.fields:
            if isinstance(field.domain, tuple):
                outside = ~pl.col(field.name).is_between(*field.domain)
                faults_by_field.append((outside, f"OutOfDomain:{field.name}"))
        faults = frame.select(
            pl.coalesce(pl.when(fault).then(pl.lit(name)) for fault, name in faults_by_field).alias("fault")
        )["fault"]
        if faults.null_count() == len(frame):
            return frame, rows, []
        bad = []
        for row, fault in zip(rows, faults, strict=True):
            if fault is not None:
                error, _, field_name = fault.partition(":")
                bad.append(_Bad(row, error, field_name or None))
        good = faults.is_null()
        return frame.filter(good), [r for r, ok in zip(rows, good, strict=True) if ok], bad

    def _refs_of(self, supplier: str, dataset: str, contract: Contract) -> list[pl.Expr]:
        sid = pl.col(contract.subject_field)
        rid = pl.col(contract.record_field) if contract.record_field else pl.lit("")
        return [
            self._refs.subject(supplier, sid).alias("subject_ref"),
            self._refs.record(supplier, dataset, sid, rid).alias("record_ref"),
        ]

    def _say(
        self,
        supplier: str,
        dataset: str,
        contract: Contract,
        frame: pl.DataFrame,
        rows: list[int],
        batch: Inputs,
        out: Outputs,
    ) -> None:
        if not rows:
            return
        on = received(batch, rows)
        named = frame.with_columns(self._refs_of(supplier, dataset, contract)).with_columns(
            expires_on(self._policy, contract, on).alias("expires_on"), on.alias("received_on")
        )
        item = generalise.generalise(contract, named)
        if dataset == "person" and contract.name == "identified/council.person":
            item = item.with_columns(
                named.select(self._refs.family(supplier, pl.col("family_id")).alias("family_ref"))["family_ref"],
                self._areas.lsoa(named.select(postcode(pl.col("postcode"))).to_series())
                .fill_null(supplier.removeprefix("council-"))
                .alias("area"),
            )
        wanted = arrow_schema(_ACTIVITY).field(dataset).type
        item = item.with_columns(pl.lit(None).alias(f.name) for f in wanted if f.name not in item.columns)
        envelope = named.select(
            pl.lit(dataset).alias("dataset"), pl.lit(supplier).alias("supplier"), "expires_on", "received_on"
        )
        struct = item.select(pl.struct([f.name for f in wanted]).alias(dataset)).to_arrow()[dataset]
        columns: list[pa.Array] = []
        for f in arrow_schema(_ACTIVITY):
            if f.name == dataset:
                columns.append(struct.combine_chunks().cast(f.type))
            elif f.name in envelope.columns:
                columns.append(envelope[f.name].to_arrow().cast(f.type))
            else:
                columns.append(pa.nulls(len(rows), f.type))
        values = encode(pa.RecordBatch.from_arrays(columns, schema=arrow_schema(_ACTIVITY)), _ACTIVITY)
        out.emit(
            "linkage.activity",
            batch.partition,
            _downstream(named).to_list(),
            wire.frame(self._ids.schema_id("linkage.activity"), values),
            headers := _belongings(batch, rows),
        )
        if dataset == "person":
            self._say_identity(supplier, contract, named, batch, headers, out)

    def _say_identity(
        self,
        supplier: str,
        contract: Contract,
        named: pl.DataFrame,
        batch: Inputs,
        headers: list[list[tuple[str, bytes]]] | None,
        out: Outputs,
    ) -> None:
        cohort = contract.name == "identified/council.person"
        clean = normalise(named)
        leads, *also = [
            encoder.encode(tokenise(clean, self._catalogue, keys)).with_columns(
                pl.lit(keys.epoch, pl.Int32).alias("epoch")
            )
            for keys, encoder in self._epochs
        ]
        other = also[0].select(pl.struct(_OF_AN_EPOCH).alias("also"))["also"] if also else None
        identity = leads.select(
            pl.lit(supplier).alias("supplier"),
            pl.lit("cohort" if cohort else "department").alias("role"),
            "expires_on",
            "epoch",
            pl.lit(self._catalogue.label).alias("catalogue"),
            "blocks",
            "tokens",
            "statements",
            "encodings",
            (pl.lit(None) if other is None else pl.lit(other)).alias("also"),
        )
        values = encode(one_batch(identity), _IDENTITY)
        out.emit(
            "linkage.identity",
            batch.partition,
            _bytes(named["subject_ref"]),
            wire.frame(self._ids.schema_id("linkage.identity"), values),
            headers,
        )

    def _readable(self, rows: list[int], batch: Inputs) -> list[int]:
        return [r for r in rows if batch.keys[r] is not None]

    def _retract(
        self,
        supplier: str,
        dataset: str,
        contract: Contract,
        rows: list[int],
        batch: Inputs,
        why: list[Headers],
        out: Outputs,
    ) -> None:
        """A tombstone, a record that nobody can read, or one that is refused leaves nothing of its key downstream."""
        if not rows:
            return
        refs = self._refs_of_keys(supplier, dataset, contract, [batch.keys[r] for r in rows])
        known = refs["record_ref"].is_not_null()
        headers = [h for h, has in zip(why, known, strict=True) if has]
        refs = refs.filter(known)
        out.emit("linkage.activity", batch.partition, both := _downstream(refs).to_list(), [None] * len(both), headers)
        if dataset == "person":
            subjects = _bytes(refs["subject_ref"])
            out.emit("linkage.identity", batch.partition, subjects, [None] * len(subjects), headers)

    def _refs_of_keys(
        self, supplier: str, dataset: str, contract: Contract, keys: Sequence[bytes | None]
    ) -> pl.DataFrame:
        """References by a supplier's keys alone; null for a key that is missing or not UTF-8."""
        parts = pl.DataFrame({"key": _texts(keys)})
        if contract.record_field:
            split = pl.col("key").str.splitn("|", 2).struct
            rest = pl.when(pl.col("key").is_not_null()).then(split.field("field_1").fill_null(""))
            parts = parts.select(
                split.field("field_0").alias(contract.subject_field), rest.alias(contract.record_field)
            )
        else:
            parts = parts.rename({"key": contract.subject_field})
        return parts.select(self._refs_of(supplier, dataset, contract))

    def _quarantine(
        self,
        supplier: str,
        dataset: str,
        contract: Contract,
        bad: list[_Bad],
        gone: list[int],
        batch: Inputs,
        out: Outputs,
    ) -> None:
        """What failed, and the end of what failed before under a key that is gone: in log order, the last holds."""
        failed = {b.row: b for b in bad}
        order = sorted({*gone, *failed})
        if not order:
            return
        # Of almost all that end because a day has passed nothing was told, and the control plane reads what is.
        rows = [row for row in order if row in failed or overdue.mark_of(batch, row) is None]
        # Governance is told under what retention calls the record, whether it was ever said or not.
        refs = self._refs_of_keys(supplier, dataset, contract, [batch.keys[row] for row in rows])
        names = {
            row: quarantine.told_key(batch.topic, batch.partition, key, batch.offsets[row])
            for key, row in zip(_downstream(refs).to_list(), rows, strict=True)
        }
        # Header names as Kafka Connect's dead letter queue has them (KIP-298), without the message text.
        headers: dict[int, list[tuple[str, bytes]]] = {row: [] for row in gone}
        belongings = _belongings(batch, [b.row for b in bad]) or [[] for _ in bad]
        for b, belonging in zip(bad, belongings, strict=True):
            headers[b.row] = [
                ("__connect.errors.topic", batch.topic.encode()),
                ("__connect.errors.partition", str(batch.partition).encode()),
                ("__connect.errors.offset", str(batch.offsets[b.row]).encode()),
                ("__connect.errors.exception.class.name", b.error.encode()),
                ("lethe.errors.field", (b.field or "").encode()),
                (quarantine.TOLD, names[b.row]),
                *_attempts(batch, b.row),
                *belonging,
            ]
        out.emit(
            contracts.quarantine_topic(supplier),
            batch.partition,
            [_quarantine_key(dataset, batch, row) for row in order],
            [(batch.values[row] or b"") if row in failed else None for row in order],
            [headers[row] for row in order],
        )
        lies = [quarantine.Failed(batch.offsets[b.row], b.error, b.field) for b in failed.values()]
        values = quarantine.told(supplier, batch.topic, batch.partition, lies, self._ids.schema_id(quarantine.TOPIC))
        of = dict(zip(failed, values, strict=True))
        out.emit(quarantine.TOPIC, batch.partition, list(names.values()), [of.get(row) for row in names])


def _attempts(batch: Inputs, row: int) -> list[tuple[str, bytes]]:
    """The header that a requeue has left on a record, if it is a number: nothing else of a supplier's headers goes
    on."""
    headers = batch.headers[row] if batch.headers is not None else None
    return [(k, v) for k, v in headers or () if k == ATTEMPTS and v is not None and v.isdigit() and len(v) < 10]


def _quarantine_key(dataset: str, batch: Inputs, row: int) -> bytes:
    """`<dataset>|<key>`, so that a later tombstone of the key removes it; a place in the log where there is no key."""
    key = batch.keys[row]
    if key is None:
        key = f"@{batch.partition}-{batch.offsets[row]}".encode()
    return dataset.encode() + b"|" + key


def _tally(batch: Inputs, told: Mapping[str, Sequence[int]], out: Outputs) -> None:
    """What became of which rows, in all and of each publication. Replaced are those accepted of which nothing is said,
    since a later record of the same transaction has their key."""
    names = publications(batch)
    for name, rows in told.items():
        out.tally(batch.topic, name, len(rows))
        if is_one(names):
            if names[0]:
                out.tally(batch.topic, name, len(rows), names[0])
            continue
        for publication, n in Counter(map(names.__getitem__, rows)).items():
            if publication:
                out.tally(batch.topic, name, n, publication)


def _belongings(batch: Inputs, rows: Sequence[int]) -> list[list[tuple[str, bytes]]] | None:
    """The header that says which publication a record belongs to, and no other: what a supplier writes into a header is
    not let through."""
    names = publications(batch)
    if not any(names):
        return None
    if is_one(names):
        return [[(BATCH_HEADER, bytes.fromhex(names[0]))]] * len(rows)
    made = {n: [(BATCH_HEADER, bytes.fromhex(n))] if n else [] for n in set(names)}
    return [made[names[row]] for row in rows]


def _unusable_id(name: str) -> pl.Expr:
    """An id that cannot be part of a key, or holds the separator of references, so that two could have one."""
    return (pl.col(name) == "") | pl.col(name).str.contains(r"[|\x1f]")


def _texts(keys: Iterable[bytes | None]) -> pl.Series:
    """Keys as text; null for one that is not UTF-8."""

    def text(key: bytes | None) -> str | None:
        try:
            return key.decode() if key is not None else None
        except UnicodeDecodeError:
            return None

    return pl.Series([text(k) for k in keys], dtype=pl.String)


def _downstream(refs: pl.DataFrame) -> pl.Series:
    """Keys of `linkage.activity` (Binary): the references joined; null where there are none."""
    return refs.select(pl.concat_str(["subject_ref", "record_ref"], separator="|")).to_series().cast(pl.Binary)


def _bytes(column: pl.Series) -> list[bytes]:
    out: list[bytes] = column.cast(pl.Binary).to_list()
    return out
