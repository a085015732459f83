// What a reader would stumble over, in the page as it stands in the browser now.
// A function that test_pages.py calls: lists of findings by the name of the check.
() => {
  const article = document.querySelector(".bd-article-container");
  const shown = (node) => node.getClientRects().length > 0;
  const name = (node) => {
    const text = (node.textContent ?? "").trim().replace(/\s+/g, " ").slice(0, 60);
    return `<${node.localName} class="${node.getAttribute("class") ?? ""}"> ${text}`;
  };
  const texts = (root) => {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
      const node = walker.currentNode;
      if (node.data.trim() && shown(node.parentElement)) found.push(node);
    }
    return found;
  };
  // Formulas have small parts and hidden ones by design.
  const outsideMath = (node) => !node.closest("mjx-container, .MathJax");

  // Mathematics that is not typeset, or that MathJax has rejected.
  const errors = "mjx-merror, mjx-mtext[style*='color: red']";
  const raw = /\$[^$\s][^$]*\$|\\[([]|\\begin\{/;
  const mathematics = [
    ...[...document.querySelectorAll(".math")].filter((node) => {
      const box = node.querySelector("mjx-container");
      return !box || box.offsetWidth === 0 || node.querySelector(errors);
    }),
    ...texts(document.body)
      .filter((node) => raw.test(node.data))
      .map((node) => node.parentElement)
      .filter((node) => outsideMath(node) && !node.closest("pre, code, .sig")),
  ].map(name);

  // Pictures and controls without a name; a file's name is none.
  const label = (node) =>
    node.getAttribute("alt") ??
    node.getAttribute("aria-label") ??
    document.getElementById(node.getAttribute("aria-labelledby"))?.textContent ??
    node.labels?.[0]?.textContent ??
    node.querySelector(":scope > title")?.textContent ??
    "";
  const pictures = "img, canvas, video, svg[role='img'], input:not([type='hidden'])";
  const labels = [...document.querySelectorAll(pictures)]
    .filter((node) => !node.closest("[aria-hidden='true'], mjx-container"))
    .filter((node) => !label(node).trim() || /\.\w{3,4}$|_images/.test(label(node)))
    .map((node) => node.outerHTML.slice(0, 120));

  // What reaches beyond the window, or beyond a box that cuts it off. Only a box with
  // a scroll bar of its own may hold something wider than itself.
  const cutOff = (node, rect) => {
    for (let box = node; box; box = box.parentElement) {
      const style = getComputedStyle(box);
      if (box !== node && style.position === "fixed") return false;
      if (/auto|scroll/.test(style.overflowX) && box.localName !== "html") return false;
      const edge = box.getBoundingClientRect();
      const hides = /hidden|clip/.test(style.overflowX) && edge.width > 1;
      if (hides && (rect.right > edge.right + 1 || rect.left < edge.left - 1)) return true;
      if (edge.width <= 1 && /hidden/.test(style.overflowX)) return false; // for readers' ears
    }
    return rect.right > innerWidth + 1 || rect.left < -1;
  };
  const range = document.createRange();
  const overflow = [
    ...texts(article).map((node) => {
      range.selectNodeContents(node);
      return [node.parentElement, range.getBoundingClientRect()];
    }),
    ...[...article.querySelectorAll("img, canvas, svg, table, mjx-container, input")]
      .filter(shown)
      .map((node) => [node, node.getBoundingClientRect()]),
  ]
    .filter(([node]) => outsideMath(node) || node.localName === "mjx-container")
    .filter(([node, rect]) => cutOff(node, rect))
    .map(([node]) => name(node));
  const width = document.scrollingElement.scrollWidth;
  if (width > innerWidth) overflow.push(`the page is ${width} wide`);

  // Letters below 11 px in the text; in a drawing at less than four fifths of its size
  // they would be below 10. A picture of pixels needs two for each one it covers.
  const small = texts(article)
    .map((node) => node.parentElement)
    .filter((node) => outsideMath(node) && !node.closest("sub, sup, kbd, .headerlink"))
    .filter((node) => parseFloat(getComputedStyle(node).fontSize) < 11)
    .map(name);
  const figures = [...article.querySelectorAll(".cell_output img")]
    .filter((image) => {
      const scale = image.getBoundingClientRect().width / image.naturalWidth;
      return image.src.includes(".svg") ? scale < 0.8 : scale > 0.55;
    })
    .map((image) => image.alt);

  return { mathematics, labels, overflow, small, figures };
};
