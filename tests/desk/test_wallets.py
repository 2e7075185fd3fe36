"""`bursar wallets` and `bursar webhooks`."""

import csv
import io

from ledger.ids import endpoint_id, event_id
from tests.books import Bank
from tests.desk.conftest import Bursar
from tests.ledger.listening import URL, listen


def test_a_wallet_with_what_it_has_and_what_was_done_to_it(bank: Bank, bursar: Bursar, tenant: str) -> None:
    bank.top_up("alice", 1_500)
    bank.bonus("alice", 20, priority=1)
    bank.freeze("alice")
    bank.order("spend", "alice", 3)
    said = bursar("wallets", "show", "alice", "--tenant", tenant).out
    assert "alice: frozen" in said
    row = said.splitlines()[2].split()
    assert row == ["gold", "1,520", "0", "3", "1,517", "2", "1"]
    assert "status by client" in said
    (account,) = bursar("wallets", "show", "alice", "--tenant", tenant, "--json").json["accounts"]
    assert (account["available"], account["lots"][0]["remaining"]) == ("1517", "20")
    for nobody in ("nobody", "@treasury"):
        assert "has no wallet" in bursar("wallets", "show", nobody, "--tenant", tenant, code=1).err


def test_a_statement_as_lines_csv_and_json(bank: Bank, bursar: Bursar, tenant: str) -> None:
    bank.top_up("alice", 1_500, reference="order-1")
    middle = bank.in_seconds(0)
    bank.spend("alice", 30, reference="=sum")
    of_it = ("alice", "--asset", "gold", "--tenant", tenant)
    said = bursar("wallets", "statement", *of_it).out.splitlines()
    assert [line.split()[2:5] for line in said[2:4]] == [
        ["top_up", "+1,500", "1,500"],
        ["spend", "-30", "1,470"],
    ]
    assert said[-1].split()[2:] == ["closing", "1,470", "0", "gold"]
    rows = list(csv.DictReader(io.StringIO(bursar("wallets", "statement", *of_it, "--csv").out)))
    assert [row["type"] for row in rows] == ["opening_balance", "top_up", "spend", "closing_balance"]
    assert rows[2]["reference"] == "'=sum", "no formula for a spreadsheet"
    lines = bursar("wallets", "statement", *of_it, "--json", "--from", middle.isoformat()).lines
    assert [line["type"] for line in lines] == ["opening_balance", "spend", "closing_balance"]
    assert (lines[0]["posted"], lines[-1]["posted"]) == ("1500", "1470")
    assert (
        "no asset 'lead'" in bursar("wallets", "statement", "alice", "--asset", "lead", "--tenant", tenant, code=1).err
    )
    assert "RFC 3339" in bursar("wallets", "statement", *of_it, "--from", "yesterday", code=1).err
    assert "yet to come" in bursar("wallets", "statement", *of_it, "--to", "2999-01-01T00:00:00Z", code=1).err


def test_webhooks_are_listed_resent_and_recovered(bank: Bank, bursar: Bursar, tenant: str) -> None:
    of_it = ("--tenant", tenant)
    assert "There is no webhook endpoint." in bursar("webhooks", "list", *of_it).out
    id_ = listen(bank)
    name = endpoint_id(id_, bank.one("SELECT created_at FROM webhook_endpoints WHERE id = %s", id_))
    seqs = [bank.top_up("alice", n).seq for n in (1, 2, 3)]
    bank.do("UPDATE deliveries SET status = 'exhausted', due_at = NULL")
    bank.do("UPDATE webhook_endpoints SET failing_since = now() WHERE id = %s", id_)
    said = bursar("webhooks", "list", *of_it).out
    assert name in said
    assert "fails since" in said
    assert URL in said
    (shown,) = bursar("webhooks", "list", "--json", *of_it).lines
    assert (shown["id"], shown["exhausted"], shown["pending"]) == (name, 3, 0)
    event = event_id(seqs[0], bank.outcome(seqs[0]).at)
    assert f"{event} is due now" in bursar("webhooks", "resend", name, event, *of_it).out
    assert bank.rows("SELECT seq FROM deliveries WHERE due_at IS NOT NULL") == [(seqs[0],)]
    assert "2 deliveries are due" in bursar("webhooks", "recover", name, "--since", "2020-01-01T00:00:00Z", *of_it).out
    assert "no delivery of event" in bursar("webhooks", "resend", name, name, *of_it, code=1).err
    assert "no webhook endpoint" in bursar("webhooks", "resend", event, event, *of_it, code=1).err
