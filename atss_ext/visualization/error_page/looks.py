"""Style and script of the page; both are written into it."""

STYLE = """
:root{color-scheme:light dark;--ink:#1f2328;--faint:#59636e;--paper:#fff;--card:#f6f8fa;--line:#d1d9e0;
--accent:#0969da;--heat:9,105,218}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--faint:#9da7b1;--paper:#0d1117;--card:#161b22;
--line:#3d444d;--accent:#58a6ff;--heat:88,166,255}}
.correct{--c:#009e73}.duplicate{--c:#e0c300}.confused{--c:#c070b4}.localisation{--c:#3a97de}.both{
--c:#3fb0c9}
.background{--c:#e07b00}.missed{--c:#ee5a4f}.ignored{--c:#8a8f98}.object{--c:#fff}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1240px;padding:16px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,'DejaVu Sans',sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;margin:.2em 0}h2{font-size:1.25rem;margin:2em 0 .5em;
border-bottom:1px solid var(--line)}
p,li,dd{max-width:75ch}.faint,figcaption{color:var(--faint)}a{color:var(--accent)}
nav ul{display:flex;flex-wrap:wrap;gap:4px 16px;padding:0;list-style:none}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:8px;margin:12px 0}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:8px 12px}
.tiles dt{color:var(--faint);font-size:.85rem}
.tiles dd{margin:0;font-size:1.3rem;font-variant-numeric:tabular-nums}
.scroll{overflow:auto;max-height:min(80vh,640px);border:1px solid var(--line);border-radius:6px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--faint);padding:6px 10px}
th,td{padding:4px 10px;text-align:right;border-top:1px solid var(--line);white-space:nowrap;
vertical-align:middle}
thead th,thead td{white-space:normal;overflow-wrap:normal;vertical-align:bottom;position:sticky;top:0;
background:var(--card);z-index:1;border-top:0}
th:first-child,td.words,th.words{text-align:left}td.words{white-space:normal;min-width:16em}
tbody th{font-weight:600;max-width:22em;white-space:normal;min-width:9em;overflow-wrap:break-word}
th button{font:inherit;font-weight:600;color:inherit;background:none;border:0;padding:0;cursor:pointer}
th[aria-sort=ascending] button::after{content:' \\25B2'}
th[aria-sort=descending] button::after{content:' \\25BC'}
tbody th:has(.dot){white-space:nowrap}.dot{display:inline-block;width:.8em;height:.8em;border-radius:2px;
background:var(--c);margin-right:.5em}
.bar{display:inline-block;height:.8em;min-width:1px;background:var(--c);vertical-align:middle}
.barcell{width:30%;min-width:120px;text-align:left}
svg{max-width:100%;height:auto;display:block}svg text{fill:var(--ink);font-family:inherit}
svg .faint{fill:var(--faint)}.grid{stroke:var(--line);stroke-width:1}
.cell{stroke:var(--line);stroke-width:.5}.heat{fill:rgb(var(--heat))}
.curve{fill:none;stroke:var(--accent);stroke-width:2}.thin{stroke-width:1.5}
.matrix{max-height:none}.plot svg{max-width:640px}.matrix svg,.plot svg{width:100%}
.spark{width:96px;height:32px;background:var(--card)}
label{display:block;margin:8px 0}
input{font:inherit;padding:4px 8px;border:1px solid var(--line);border-radius:6px;
background:var(--paper);color:var(--ink);max-width:100%}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,360px),1fr));gap:16px}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:6px;padding:8px}
figure svg{width:100%;background:#7f858c}figure ul{padding-left:0;list-style:none;margin:.5em 0}
.box{fill:none;stroke:var(--c)}.mark{fill:var(--c)}svg .number{fill:#000;font-weight:700}
.tagged{display:inline-block;min-width:1.7em;text-align:center;background:var(--c);color:#000;
border-radius:3px;
font-weight:700;font-size:.8rem;margin-right:.5em}
@media (max-width:600px){th,td{padding:4px 6px}.barcell{display:none}td.words{min-width:7em}
.groups td{white-space:normal}tbody th{min-width:6em}}
@media print{.scroll{max-height:none;overflow:visible}}
"""

SCRIPT = """
(function () {
  'use strict';
  var table = document.getElementById('category-table');
  var body = table.tBodies[0];
  var rows = Array.prototype.slice.call(body.rows);
  function value(row, column) {
    var cell = row.cells[column];
    if (column === 0) { return cell.textContent.toLowerCase(); }
    var text = cell.getAttribute('data-value');
    return text === '' || text === null ? -1 : Number(text);
  }
  Array.prototype.forEach.call(table.tHead.rows[0].cells, function (head, column) {
    var button = head.querySelector('button');
    if (!button) { return; }
    button.disabled = false;
    button.addEventListener('click', function () {
      var before = head.getAttribute('aria-sort');
      var down = before ? before === 'ascending' : column > 0;
      Array.prototype.forEach.call(table.tHead.rows[0].cells, function (one) {
        one.removeAttribute('aria-sort');
      });
      head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      rows.sort(function (a, b) {
        var x = value(a, column), y = value(b, column), order = x < y ? -1 : x > y ? 1 : 0;
        return down ? -order : order;
      });
      rows.forEach(function (row) { body.appendChild(row); });
    });
  });
  var filter = document.getElementById('category-filter');
  filter.parentNode.hidden = false;
  filter.addEventListener('input', function () {
    var wanted = filter.value.toLowerCase();
    rows.forEach(function (row) { row.hidden = value(row, 0).indexOf(wanted) < 0; });
  });
})();
"""
