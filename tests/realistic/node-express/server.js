'use strict';
const express = require('express');

const app = express();
app.get('/', (request, response) => response.send('hello from express\n'));
app.get('/healthz', (request, response) => response.sendStatus(200));

const server = app.listen(process.env.PORT || 3000, '127.0.0.1');

// `node server.js --once`: one request to itself, for a smoke test.
if (process.argv.includes('--once')) {
  server.on('listening', async () => {
    const answer = await fetch(`http://127.0.0.1:${server.address().port}/`);
    process.stdout.write(await answer.text());
    server.close();
  });
}
