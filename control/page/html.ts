/** The status page's document; style and script are files beside it, as its policy wants. */
export const html = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>microperimeter</title>
<link rel="stylesheet" href="page.css">
<link rel="icon" href="data:,">
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header>
<h1>microperimeter <span id="host"></span></h1>
<p id="state" role="status"></p>
<p id="problem" role="alert"></p>
</header>
<main id="main">
<section aria-labelledby="traffic-title">
<h2 id="traffic-title">Traffic</h2>
<div id="traffic" class="cards"></div>
</section>
<section aria-labelledby="firewalls-title">
<h2 id="firewalls-title">Gate and firewalls</h2>
<p id="gate"></p>
<div class="wide"><table id="firewalls"><caption class="hidden">Firewalls</caption>
<thead><tr><th scope="col">Name</th><th scope="col">Address</th><th scope="col">State</th>
<th scope="col">Since</th><th scope="col" class="number">Round trip</th>
<th scope="col" class="number">Sent</th><th scope="col" class="number">Returned</th></tr></thead>
<tbody></tbody></table></div>
</section>
<section aria-labelledby="explain-title">
<h2 id="explain-title">Explain a connection</h2>
<form id="explain">
<label>Protocol <select name="protocol"><option>tcp</option><option>udp</option>
<option>icmp</option></select></label>
<label>From <input name="from" required size="22" placeholder="10.1.0.9:41000"
autocomplete="off" spellcheck="false"></label>
<label>To <input name="to" required size="22" placeholder="10.2.0.7:5432"
autocomplete="off" spellcheck="false"></label>
<label>Opened by <select name="direction"><option value="egress">this host</option>
<option value="ingress">the other end</option></select></label>
<button>Explain</button>
</form>
<div id="explanation" role="status"></div>
</section>
<section aria-labelledby="rules-title">
<h2 id="rules-title">Rules</h2>
<div class="wide"><table id="rules"><caption class="hidden">Rules and the connections that they
decided</caption><thead><tr><th scope="col">Name</th><th scope="col">Action</th>
<th scope="col" class="number">Connections</th><th scope="col">Note</th></tr></thead>
<tbody></tbody></table></div>
</section>
<section aria-labelledby="flows-title">
<h2 id="flows-title">Flows <span id="flow-count"></span></h2>
<div class="wide"><table id="flows"><caption class="hidden">Flows with the most bytes</caption>
<thead><tr><th scope="col">Protocol</th><th scope="col">Local</th><th scope="col">Remote</th>
<th scope="col">Opened by</th><th scope="col">Verdict</th><th scope="col">Rule</th>
<th scope="col">Carried by</th><th scope="col" class="number">Age</th>
<th scope="col" class="number">Bytes</th></tr></thead><tbody></tbody></table></div>
</section>
<section aria-labelledby="drops-title">
<h2 id="drops-title">Dropped</h2>
<div class="wide"><table id="drops"><caption class="hidden">Dropped packets by reason</caption>
<thead><tr><th scope="col">Why</th><th scope="col" class="number">Packets</th></tr></thead>
<tbody></tbody></table></div>
</section>
<section aria-labelledby="act-title" id="act" hidden>
<h2 id="act-title">Act</h2>
<form id="reload"><label>Token <input name="token" type="password" required
autocomplete="off"></label> <button>Reload the configuration</button></form>
<div id="reloaded" role="status"></div>
</section>
</main>
<footer><p id="about"></p></footer>
<script src="page.js"></script>
</body>
</html>
`;
