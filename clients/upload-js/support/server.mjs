// The real server in a process of its own: started, killed, started again on the same data.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const program = process.env.REELYARD_PROGRAM ?? path.join(root, 'target/debug/reelyard');

export class Server {
  static async start() {
    const server = new Server();
    server.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'reelyard-upload-js-'));
    server.data = path.join(server.folder, 'data');
    server.port = await freePort();
    await server.#spawn();
    server.key = fs.readFileSync(path.join(server.data, 'admin.key'), 'utf8').trim();
    return server;
  }

  async #spawn() {
    // Uploads only: the media program may not be built when this test runs.
    const serve = ['serve', '--data-dir', this.data, '--listen', `127.0.0.1:${this.port}`, '--workers', '0', '--media-program', '/bin/true'];
    this.child = spawn(program, serve, { stdio: ['ignore', 'pipe', process.env.SERVER_LOG ? 'inherit' : 'ignore'] });
    for await (const line of readline.createInterface({ input: this.child.stdout })) {
      if (line.startsWith('Reelyard serves at')) break;
    }
    this.child.stdout.resume();
    if (this.child.exitCode !== null) throw new Error('the server ended before it said where it listens');
  }

  /** `kill -9`: nothing is flushed, nobody is told. */
  async kill() {
    const ended = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await ended;
  }

  async restart() {
    await this.#spawn();
  }

  async stop() {
    if (this.child.exitCode === null && this.child.signalCode === null) await this.kill();
    fs.rmSync(this.folder, { recursive: true, force: true });
  }

  get endpoint() {
    return `http://127.0.0.1:${this.port}/uploads/parts`;
  }

  source(asset) {
    return fs.readFileSync(path.join(this.data, 'sources', asset));
  }

  assets() {
    return fs.readdirSync(path.join(this.data, 'sources'));
  }
}

// Between the ports that the other tests of this project give out and those that Linux gives to outgoing connections: a
// server that was killed finds its port free when it is back.
const [FIRST_PORT, LAST_PORT] = [32_000, 32_767];

export async function freePort() {
  for (;;) {
    const port = FIRST_PORT + Math.floor(Math.random() * (LAST_PORT - FIRST_PORT + 1));
    if (await isFree(port)) return port;
  }
}

async function isFree(port) {
  const listener = net.createServer().listen(port, '127.0.0.1');
  try {
    await once(listener, 'listening');
  } catch {
    return false;
  }
  listener.close();
  await once(listener, 'close');
  return true;
}
