// Search results show a page's words; of a formula they would show its source, "\(\lambda\ne 0\)".
const LETTERS = {alpha: 'α', beta: 'β', gamma: 'γ', delta: 'δ', Delta: 'Δ', epsilon: 'ε', varepsilon: 'ε', eta: 'η',
  theta: 'θ', kappa: 'κ', lambda: 'λ', Lambda: 'Λ', mu: 'μ', nu: 'ν', pi: 'π', Pi: 'Π', rho: 'ρ', sigma: 'σ', Sigma: 'Σ',
  tau: 'τ', phi: 'φ', varphi: 'φ', psi: 'ψ', Psi: 'Ψ', omega: 'ω', Omega: 'Ω', sum: 'Σ', cdot: '·', times: '×', star: '⋆',
  ast: '∗', circ: '°', pm: '±', le: '≤', ge: '≥', ne: '≠', approx: '≈', to: '→', mapsto: '↦', in: '∈', lVert: '‖',
  rVert: '‖', lvert: '|', rvert: '|', infty: '∞', sqrt: '√', quad: ' ', qquad: ' ', dots: '…', ldots: '…', langle: '⟨',
  rangle: '⟩', nabla: '∇', partial: '∂', perp: '⊥', cong: '≅', oplus: '⊕', otimes: '⊗', leq: '≤', geq: '≥', neq: '≠'};
function readable(tex) {
  return tex.replace(/\\[()[\]]/g, '').replace(/\\begin\{\w+\*?\}|\\end\{\w+\*?\}/g, ' ')
    .replace(/\\([a-zA-Z]+)/g, (_, name) => LETTERS[name] ?? '')
    .replace(/\\[,;:! ]/g, ' ').replace(/\\(.)/g, '$1').replace(/[{}&]/g, '');
}
document.addEventListener('DOMContentLoaded', () => {
  if (typeof Search === 'undefined') return;
  const words = Search.htmlToText;
  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, 'text/html');
    page.querySelectorAll('.math').forEach(formula => { formula.textContent = readable(formula.textContent); });
    return words(page.documentElement.outerHTML, anchor);
  };
  const list = document.querySelector('#search-results');
  if (list) new MutationObserver(() => list.querySelectorAll('a').forEach(link => {
    if (link.textContent.includes('\\')) link.textContent = readable(link.textContent);
  })).observe(list, {childList: true, subtree: true});
});
