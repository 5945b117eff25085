// One copy through the official TypeScript SDK; prints what it was told as JSON.
import Cloudflare from "cloudflare";

const given = JSON.parse(process.env.GIVEN);
const client = new Cloudflare({ baseURL: given.baseURL, apiToken: given.token });
const { jobs, connectivityPrecheck } = client.r2.superSlurper;
const account = { account_id: given.account };

const precheck = await connectivityPrecheck.target({ ...account, ...given.target });
const created = await jobs.create({ ...account, source: given.source, target: given.target });
let progress;
do {
  await new Promise((resolve) => setTimeout(resolve, 100));
  progress = await jobs.progress(created.id, account);
} while (progress.status === "running");

const found = await jobs.get(created.id, account);
const logs = [];
for await (const entry of jobs.logs.list(created.id, account)) logs.push(entry.logType);
const listed = [];
for await (const job of jobs.list(account)) listed.push(job.id);

let refusal;
try {
  await jobs.pause(created.id, account);
} catch (error) {
  refusal = { name: error.constructor.name, status: error.status };
}
console.log(JSON.stringify({ precheck, created, progress, found, logs, listed, refusal }));
