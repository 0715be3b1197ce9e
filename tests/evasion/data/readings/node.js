// Five programs as they are commonly written: WHATWG URL, the older url.parse, a split at the first question mark, one at the
// first of what Fastify 4 begins a query at, and WHATWG URL of a path that has been unescaped.
const fs = require("fs"), http = require("http"), path = require("path"), querystring = require("querystring"), url = require("url");
const [root, marker, ...ports] = process.argv.slice(2);

function answer(response, pathname, parameters) {
  const send = (status, text) => response.writeHead(status, {"Content-Type": "text/html"}).end(text);
  const plain = path.normalize(decodeURIComponent(pathname));
  if (plain.startsWith("/app/")) return send(200, marker);
  const name = path.join(root, plain);
  if (!name.startsWith(root)) return send(403, "forbidden");
  if (name === path.join(root, "view.php")) {
    const listed = parameters.topic === "q31337q" || (parameters.user_id === "5" && parameters.a === "1");
    return send(200, listed ? marker : "innocent");
  }
  fs.readFile(name, (error, data) => error ? send(404, "none") : send(200, data));
}

const programs = [
  (request, response) => {
    const found = new URL(request.url, `http://${request.headers.host}`);
    answer(response, found.pathname, Object.fromEntries(found.searchParams));
  },
  (request, response) => {
    const found = url.parse(request.url);
    answer(response, found.pathname, querystring.parse(found.query));
  },
  (request, response) => {
    const [pathname, ...query] = request.url.split("?");
    answer(response, pathname, querystring.parse(query.join("?")));
  },
  (request, response) => {
    const end = request.url.search(/[?;#]/);
    const [pathname, query] = end < 0 ? [request.url, ""] : [request.url.slice(0, end), request.url.slice(end + 1)];
    answer(response, pathname, querystring.parse(query));
  },
  (request, response) => {
    const [pathname, ...query] = request.url.split("?");
    const found = new URL(decodeURIComponent(pathname), `http://${request.headers.host}`);
    answer(response, found.pathname, querystring.parse(query.join("?")));
  },
];
programs.forEach((program, n) => http.createServer((request, response) => {
  try { program(request, response); } catch { response.writeHead(400).end(); }
}).listen(Number(ports[n]), "127.0.0.1"));
