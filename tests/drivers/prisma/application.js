// A small application of Prisma, with its own client and its adapter for node-postgres. argv[2] is the URL of a database
// with an empty table accounts; throws if anything is not as Prisma's documentation says.

const assert = require('node:assert/strict')
const { PrismaClient, Prisma } = require('@prisma/client')
const { PrismaPg } = require('@prisma/adapter-pg')

const url = process.argv[2]

/** With statements that keep their names, and without, as behind a pooler. */
async function application(options) {
  const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: url, max: 3 }, options) })
  const { account } = prisma
  const names = (rows) => rows.map((row) => row.name)

  // One row, and what it holds.
  const opened = new Date('2024-02-29T12:00:00.123Z')
  const ada = { aid: 1n, name: 'Ada', balance: 10, price: new Prisma.Decimal('12.50'), opened, tags: ['a', 'b c'] }
  const created = await account.create({ data: { ...ada, photo: Buffer.from([0, 255]) } })
  assert.deepEqual([created.aid, created.name, created.price.toString()], [1n, 'Ada', '12.5'])
  const found = await account.findUnique({ where: { aid: 1n } })
  assert.deepEqual([found.opened, found.tags, [...found.photo]], [opened, ['a', 'b c'], [0, 255]])
  assert.equal(await account.findUnique({ where: { aid: 99n } }), null)

  // Many, over all shards.
  const rows = Array.from({ length: 30 }, (_, index) => ({ aid: BigInt(index + 2), name: `n${index + 2}`, balance: index }))
  assert.deepEqual(await account.createMany({ data: rows }), { count: 30 })
  assert.deepEqual(await account.createMany({ data: rows, skipDuplicates: true }), { count: 0 })
  const page = { where: { balance: { gte: 5 } }, orderBy: { aid: 'desc' }, skip: 2, take: 3 }
  assert.deepEqual(names(await account.findMany(page)), ['n29', 'n28', 'n27'])
  const some = await account.findMany({ where: { aid: { in: [3n, 9n, 27n, 999n] } }, orderBy: { aid: 'asc' } })
  assert.deepEqual(names(some), ['n3', 'n9', 'n27'])
  assert.equal(await account.count({ where: { aid: 7n } }), 1)
  const many = await Promise.all(rows.map(({ aid }) => account.findUniqueOrThrow({ where: { aid } })))
  assert.deepEqual(names(many), names(rows))

  // Changes.
  const raised = await account.update({ where: { aid: 1n }, data: { balance: { increment: 5 } } })
  assert.equal(raised.balance, 15)
  assert.deepEqual(await account.updateMany({ where: { balance: { lt: 3 } }, data: { tags: ['low'] } }), { count: 3 })
  const upsert = (name) => account.upsert({ where: { aid: 50n }, create: { aid: 50n, name }, update: { name } })
  assert.deepEqual([(await upsert('first')).name, (await upsert('second')).name], ['first', 'second'])
  await account.delete({ where: { aid: 50n } })

  // Errors are known by their kind.
  const code = async (promise) => promise.then(() => 'none', (error) => error.code)
  assert.equal(await code(account.create({ data: { aid: 1n } })), 'P2002')
  assert.equal(await code(account.update({ where: { aid: 98n }, data: { name: 'x' } })), 'P2025')

  // Transactions over shards: in one go, by a function, and taken back.
  await prisma.$transaction([
    account.update({ where: { aid: 2n }, data: { balance: 100 } }),
    account.update({ where: { aid: 3n }, data: { balance: 200 } }),
  ])
  await prisma.$transaction(async (block) => {
    const { balance } = await block.account.findUnique({ where: { aid: 3n } })
    await block.account.update({ where: { aid: 3n }, data: { balance: 0 } })
    await block.account.update({ where: { aid: 4n }, data: { balance } })
  })
  const failing = prisma.$transaction(async (block) => {
    await block.account.updateMany({ data: { name: 'gone' } })
    throw new Error('no')
  })
  await assert.rejects(failing, /no/)
  const three = await account.findMany({ where: { aid: { in: [2n, 3n, 4n] } }, orderBy: { aid: 'asc' } })
  assert.deepEqual(three.map((row) => [row.name, row.balance]), [['n2', 100], ['n3', 0], ['n4', 200]])

  // In one's own words.
  const aid = 5
  assert.deepEqual(await prisma.$queryRaw`SELECT name, balance FROM accounts WHERE aid = ${aid}`, [{ name: 'n5', balance: 3 }])
  assert.equal(await prisma.$executeRaw`UPDATE accounts SET name = ${'five'} WHERE aid = ${aid}`, 1)
  assert.equal(await prisma.$executeRawUnsafe('DEALLOCATE ALL'), 0)
  assert.deepEqual(await prisma.$queryRaw`SELECT name FROM accounts WHERE aid = ${aid}`, [{ name: 'five' }])

  assert.deepEqual(await account.deleteMany(), { count: 31 })
  await prisma.$disconnect()
}

async function main() {
  await application({})
  let named = 0
  const statements = new Map()
  const statementNameGenerator = ({ sql }) => {
    if (!statements.has(sql)) statements.set(sql, `s${named++}`)
    return statements.get(sql)
  }
  await application({ statementNameGenerator })
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
