"""What a page shows outside of its window or of its paper, measured in a browser."""

CUT = """
(printed => {
  const edge = document.documentElement.clientWidth, found = [], slack = 1;
  if (!printed) document.querySelectorAll('details:not(.thumb)').forEach(each => { each.open = true; });
  const named = each => `${each.tagName}.${each.getAttribute('class') || ''}: ${(each.textContent || '').trim().slice(0, 60)}`;
  const scrolls = each => {
    for (let at = each; at && at !== document.body; at = at.parentElement)
      if (['auto', 'scroll'].includes(getComputedStyle(at).overflowX)) return true;
    return false;
  };
  const outside = (box, left, right) => box.width > 0 && box.height > 0 && (box.left < left - slack || box.right > right + slack);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const text = node.nodeType === Node.TEXT_NODE, owner = text ? node.parentElement : node;
    if (text && !node.textContent.trim()) continue;
    const range = document.createRange();
    range.selectNode(node);
    const box = text ? range.getBoundingClientRect() : node.getBoundingClientRect(), drawing = owner.closest('svg');
    if (drawing && drawing !== node) {
      const frame = drawing.getBoundingClientRect();
      if (text && (outside(box, frame.left, frame.right) || box.top < frame.top - slack || box.bottom > frame.bottom + slack)) found.push('drawing: ' + named(owner));
      continue;
    }
    if (text) {
      const cell = owner.closest('td, th');
      if (cell && outside(box, cell.getBoundingClientRect().left, cell.getBoundingClientRect().right)) found.push('cell: ' + named(cell));
    }
    if (outside(box, 0, edge) && (printed || !scrolls(owner.parentElement))) found.push(named(owner));
  }
  return found;
})"""
TEXT = """
(() => {
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const range = document.createRange();
    range.selectNode(node);
    if (node.parentElement.tagName !== 'STYLE' && range.getClientRects().length) found.push(node.textContent);
  }
  return found.join(' ');
})()"""


def cut(browser, printed=False):
    """[description of what is cut, ...] of the page that a browser shows: elements and text outside of the window (on paper, of the paper) that no
    container scrolls to, text outside of its table cell, and text outside of its drawing."""
    return browser.run(f"{CUT}({str(printed).lower()})")


def text(browser):
    """The text of the elements that have a place on the page."""
    return browser.run(TEXT)
