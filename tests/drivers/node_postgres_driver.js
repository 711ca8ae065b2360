// node-postgres against the URL in the first argument: parameters, prepared, transactions, errors, COPY, pool, cancel.

const assert = require("node:assert/strict");
const { once } = require("node:events");
const { pipeline } = require("node:stream/promises");
const { Readable } = require("node:stream");
const { Client, Pool } = require("pg");
const { from: copyFrom, to: copyTo } = require("pg-copy-streams");

const url = process.argv[2];

async function insertAndRead(client) {
  for (let aid = 1; aid <= 40; aid++) {
    const photo = Buffer.from([0, aid, 255]);
    const opened = new Date(Date.UTC(2024, 1, 29, 12, aid));
    const row = [aid, `näme ${aid}`, aid * 10, "1.50", opened, photo, ["a", null, "b,c"]];
    const inserted = await client.query("INSERT INTO accounts VALUES ($1, $2, $3, $4, $5, $6, $7)", row);
    assert.deepEqual([inserted.command, inserted.rowCount], ["INSERT", 1]);
    const { rows } = await client.query("SELECT * FROM accounts WHERE aid = $1", [aid]);
    const expected = { aid: `${aid}`, name: `näme ${aid}`, balance: aid * 10, price: "1.50", opened, photo, tags: ["a", null, "b,c"] };
    assert.deepEqual(rows, [expected]);
  }
  const top = await client.query({ text: "SELECT aid FROM accounts ORDER BY aid DESC LIMIT 3", rowMode: "array" });
  assert.deepEqual(top.rows, [["40"], ["39"], ["38"]]);
  const some = await client.query("SELECT aid FROM accounts WHERE aid = ANY($1::int8[]) ORDER BY aid", [[3, 1, 99]]);
  assert.deepEqual(some.rows.map((row) => row.aid), ["1", "3"]);
  const binary = await client.query({ text: "SELECT balance FROM accounts WHERE aid = $1", values: [7], binary: true });
  assert.equal(binary.rows[0].balance, 70);
  const several = await client.query("SELECT 1 AS one; SELECT 2 AS two");
  assert.deepEqual(several.map((result) => result.rows[0]), [{ one: 1 }, { two: 2 }]);
}

async function prepared(client) {
  for (let round = 0; round < 3; round++) {
    for (let aid = 1; aid <= 40; aid++) {
      const query = { name: "by key", text: "SELECT balance FROM accounts WHERE aid = $1", values: [aid] };
      assert.equal((await client.query(query)).rows[0].balance, aid * 10);
    }
  }
  // Queued without waiting: they are answered in order.
  const names = await Promise.all(
    Array.from({ length: 40 }, (_, at) => client.query("SELECT name FROM accounts WHERE aid = $1", [at + 1])),
  );
  assert.deepEqual(names.map((result) => result.rows[0].name), Array.from({ length: 40 }, (_, at) => `näme ${at + 1}`));
}

async function fails(promise, code) {
  await assert.rejects(promise, (error) => {
    assert.equal(error.code, code, error.message);
    return true;
  });
}

async function transactions(client) {
  await client.query("BEGIN");
  for (let aid = 1; aid <= 8; aid++) {
    await client.query("UPDATE accounts SET balance = balance + 1 WHERE aid = $1", [aid]);
  }
  await client.query("SAVEPOINT within");
  await fails(client.query("UPDATE accounts SET balance = $1 WHERE aid = 10", [-1]), "23514");
  await fails(client.query("SELECT 1"), "25P02");
  await client.query("ROLLBACK TO SAVEPOINT within");
  await client.query("COMMIT");
  const { rows } = await client.query("SELECT balance FROM accounts WHERE aid <= 10 ORDER BY aid");
  assert.deepEqual(rows.map((row) => row.balance), [11, 21, 31, 41, 51, 61, 71, 81, 90, 100]);
  await client.query("BEGIN");
  await client.query("DELETE FROM accounts WHERE aid <= 10");
  await client.query("ROLLBACK");
  assert.equal((await client.query("SELECT aid FROM accounts WHERE aid = 3")).rowCount, 1);
}

async function failures(client) {
  await fails(client.query("SELECT nothing FROM accounts WHERE aid = $1", [1]), "42703");
  await fails(client.query("INSERT INTO accounts (aid) VALUES ($1)", [1]), "23505");
  await fails(client.query("SELEC"), "42601");
  await fails(client.query("SELECT 1/0"), "22012");
  await fails(client.query("SELECT aid FROM accounts WHERE aid = $1", ["x"]), "22P02");
  assert.equal((await client.query("SELECT 1 AS one")).rows[0].one, 1);
}

async function copies(client) {
  const lines = Array.from({ length: 200 }, (_, at) => `${1000 + at}\tcopied\\t${at}\n`);
  const into = client.query(copyFrom("COPY accounts (aid, name) FROM STDIN"));
  await pipeline(Readable.from(lines), into);
  assert.equal(into.rowCount, 200);
  assert.equal((await client.query("SELECT name FROM accounts WHERE aid = 1007")).rows[0].name, "copied\t7");
  let text = "";
  for await (const chunk of client.query(copyTo("COPY accounts (aid) TO STDOUT"))) text += chunk;
  const aids = text.trim().split("\n").map(Number).sort((a, b) => a - b);
  assert.equal(aids.length, 240);
  assert.equal(aids[40], 1000);
  await fails(pipeline(Readable.from(["5000\n", "1\n"]), client.query(copyFrom("COPY accounts (aid) FROM STDIN"))), "23505");
  assert.equal((await client.query("SELECT 1 FROM accounts WHERE aid = 5000")).rowCount, 0);
}

async function cancels(client) {
  const query = client.query("SELECT pg_sleep(30) FROM accounts WHERE aid = 4");
  const canceller = new Client({ connectionString: url });
  setTimeout(() => {
    const { host, port } = client;
    const { connection } = canceller;
    connection.on("connect", () => connection.cancel(client.processID, client.secretKey));
    connection.connect(port, host);
  }, 300);
  await fails(query, "57014");
  assert.equal((await client.query("SELECT 1 AS one")).rows[0].one, 1);
}

async function pool() {
  const pool = new Pool({ connectionString: url, max: 8 });
  const aids = Array.from({ length: 200 }, (_, at) => `${1 + (at % 40)}`);
  const found = await Promise.all(aids.map((aid) => pool.query("SELECT aid FROM accounts WHERE aid = $1", [aid])));
  assert.deepEqual(found.map((result) => result.rows[0].aid), aids);
  await pool.end();
}

async function main() {
  const client = new Client({ connectionString: url });
  await client.connect();
  const notice = once(client, "notice");
  await client.query("DROP TABLE IF EXISTS nowhere");
  assert.equal((await notice)[0].message, 'table "nowhere" does not exist, skipping');
  await insertAndRead(client);
  await prepared(client);
  await transactions(client);
  await failures(client);
  await copies(client);
  await cancels(client);
  await client.end();
  await pool();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
