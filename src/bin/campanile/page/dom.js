// What both pages do with their elements.

export const $ = (id) => document.getElementById(id);

// Writing the same text again would still cost layout, and make some screen readers repeat it.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function element(tag, text, props) {
  const node = Object.assign(document.createElement(tag), props);
  if (text !== undefined) node.textContent = text;
  return node;
}
