// A proxy between client and server that writes down what passes and does to it what bad networks do.
import { once } from 'node:events';
import http from 'node:http';
import { Transform } from 'node:stream';

/**
 * `harm(request, count)` is asked for every request, `count` being how many parts came before it, and answers what to
 * do: nothing, `{cutAfter}` bytes of the body, `{flip}` the byte at that place, `{answer, headers}` without asking the
 * server, `{loseAnswer}` of the server, `{hold}` until the promise is done.
 */
export class Proxy {
  parts = [];
  requests = [];

  static async start(server, harm = () => undefined) {
    const proxy = new Proxy();
    proxy.harm = harm;
    proxy.listener = http.createServer((request, response) => {
      proxy.#pass(server, request, response).catch(() => response.destroy());
    });
    proxy.listener.listen(0, '127.0.0.1');
    await once(proxy.listener, 'listening');
    return proxy;
  }

  get endpoint() {
    return `http://127.0.0.1:${this.listener.address().port}/uploads/parts`;
  }

  stop() {
    this.listener.closeAllConnections();
    this.listener.close();
  }

  async #pass(server, request, response) {
    const count = this.parts.length;
    this.requests.push(`${request.method} ${request.url}`);
    const part = request.method === 'PUT' ? { number: Number(request.headers['x-part-number']), headers: request.headers } : undefined;
    if (part) this.parts.push(part);
    const { cutAfter, flip, answer, headers, loseAnswer, hold } = this.harm(request, count) ?? {};
    if (answer) {
      request.resume();
      await once(request, 'end');
      response.writeHead(answer, headers).end('{"title": "harm"}');
      return;
    }
    await hold;
    if (request.destroyed || response.destroyed) return;
    const { port } = server;
    const onward = http.request({ host: '127.0.0.1', port, method: request.method, path: request.url, headers: request.headers });
    const cut = () => {
      onward.destroy();
      request.destroy();
      response.destroy();
    };
    onward.on('error', cut);
    request.on('error', cut);
    let passed = 0;
    const harmed = new Transform({
      transform(chunk, _, done) {
        const begin = passed;
        passed += chunk.length;
        if (cutAfter !== undefined && passed > cutAfter) return cut();
        if (flip !== undefined && begin <= flip && flip < passed) chunk[flip - begin] ^= 1;
        done(null, chunk);
      },
    });
    request.pipe(harmed).pipe(onward);
    const [answered] = await once(onward, 'response');
    if (part) part.status = answered.statusCode;
    if (loseAnswer) return cut();
    response.writeHead(answered.statusCode, answered.headers);
    answered.on('error', cut);
    answered.pipe(response);
  }
}
