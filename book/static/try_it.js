// Networks of chapters 13 and 15, four of each, on the reader's own photograph. Everything happens in this page: no
// picture leaves it, and nothing below is loaded before a click asks for it.

const SIDE = 256;
const FRACTIONS = [0.5, 0.75, 1];  // of the longest streak, as in eqreg.physics.rain
const LENGTH = 14, WIDTH = 1.2, BRIGHTEST = 0.45;
const TURN = ['turn', 'Turn what the networks see by', 0, 270, 90, 0, '°'];
// What a photograph suffers. Settings: name, label, min, max, step, start, unit.
const DAMAGES = {
  rain: {
    name: 'rain', before: 'the photograph in rain', now: 'In the rain', none: 'There is no rain',
    settings: [
      ['density', 'Drops per 100 pixels', 0, 3, 0.1, 1, ''],
      ['angle', 'Rain falls at', -90, 90, 5, 10, '°'], TURN],
    apply: (clean, v) => addRain(clean, v.density, v.angle),
    absent: v => !v.density,
  },
  inpainting: {
    name: 'dead pixels, few photons', before: 'the photograph as it was measured', now: 'As measured',
    settings: [
      ['keep', 'Pixels that live', 30, 100, 5, 70, ' %'],
      ['photons', 'Photons in a white pixel', 5, 100, 5, 20, ''], TURN],
    apply: (clean, v) => measure(clean, v.keep / 100, v.photons),
    absent: () => false,
  },
};

// The same drops for the same settings, so that a change on the page is a change of the setting.
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

// Streaks as the library draws them: a pixel gets the part of it that a pen covers.
function addRain(clean, density, degrees) {
  const x = clean.slice(), next = random(1), angle = degrees * Math.PI / 180;
  const drops = Math.round(SIDE * SIDE * density / 100), reach = LENGTH / 2 + 2;
  const [across, down] = [Math.sin(angle), Math.cos(angle)];
  for (let n = 0; n < drops; n++) {
    const [cx, cy] = [next() * SIDE, next() * SIDE];
    const half = LENGTH * FRACTIONS[n % 3] / 2, bright = BRIGHTEST * (0.5 + 0.5 * next());
    for (let j = Math.max(0, Math.ceil(cy - reach)); j < Math.min(SIDE, cy + reach); j++)
      for (let i = Math.max(0, Math.ceil(cx - reach)); i < Math.min(SIDE, cx + reach); i++) {
        const along = Math.max(-half, Math.min(half, (i - cx) * across + (j - cy) * down));
        const d = Math.hypot(i - cx - along * across, j - cy - along * down);
        x[j * SIDE + i] += bright * Math.max(0, Math.min(1, WIDTH / 2 + 0.5 - d));
      }
  }
  return x.map(v => Math.min(1, v));
}

// Dead pixels are black; the others count photons, whose number follows Poisson's law (by Knuth's method).
function measure(clean, keep, photons) {
  const alive = random(2), arrives = random(3);
  return clean.map(v => {
    let count = -1;
    for (let product = 1; product > Math.exp(-v * photons); product *= arrives()) count++;
    return alive() < keep ? count / photons : 0;
  });
}

// Counter-clockwise, as rotate(x, k).
function turned(x, quarters) {
  for (; quarters > 0; quarters--) {
    const y = new Float32Array(x.length);
    for (let j = 0; j < SIDE; j++)
      for (let i = 0; i < SIDE; i++) y[(SIDE - 1 - i) * SIDE + j] = x[j * SIDE + i];
    x = y;
  }
  return x;
}

const squares = (x, y) => x.reduce((sum, v, i) => sum + (v - (y ? y[i] : 0)) ** 2, 0);
const clipped = x => x.map(v => Math.max(0, Math.min(1, v)));
const psnr = (x, y) => -10 * Math.log10(squares(clipped(x), y) / x.length);

function paint(canvas, x) {
  const image = new ImageData(SIDE, SIDE);
  x.forEach((v, i) => {
    image.data.fill(255 * Math.max(0, Math.min(1, v)), 4 * i, 4 * i + 3);
    image.data[4 * i + 3] = 255;
  });
  canvas.getContext('2d').putImageData(image, 0, 0);
}

// The largest square in the middle, grey: the networks were trained on grey photographs.
async function grey(source) {
  const bitmap = await createImageBitmap(source), side = Math.min(bitmap.width, bitmap.height);
  const canvas = Object.assign(document.createElement('canvas'), {width: SIDE, height: SIDE});
  const paper = canvas.getContext('2d', {willReadFrequently: true});
  paper.imageSmoothingQuality = 'high';
  paper.drawImage(
    bitmap, (bitmap.width - side) / 2, (bitmap.height - side) / 2, side, side, 0, 0, SIDE, SIDE);
  const {data} = paper.getImageData(0, 0, SIDE, SIDE);
  return Float32Array.from(
    {length: SIDE * SIDE},
    (_, i) => (0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]) / 255);
}

const fetched = async url => {
  const answer = await fetch(url);
  if (!answer.ok) throw Error(`${url}: ${answer.status}`);
  return answer;
};

export async function start(figure) {
  const place = new URL('try/', import.meta.url), state = figure.querySelector('[role=status]');
  figure.querySelector('button').remove();
  state.textContent = 'Loading the networks …';
  let ort, about;
  try {
    ort = await import(new URL('ort.wasm.min.mjs', place));
    about = await (await fetched(new URL('networks.json', place))).json();
  } catch (error) {  // browsers remember a module that did not come until the page is loaded again
    state.textContent = `The networks did not load (${error.message}). Load the page again.`;
    return;
  }
  ort.env.wasm.wasmPaths = place.href;
  ort.env.wasm.numThreads = 1;
  const loaded = {};  // of a damage, once it was chosen
  const load = async kind => loaded[kind] ??= await Promise.all(
    about.networks[kind].map(async ({file}) => {
      const bytes = new Uint8Array(await (await fetched(new URL(file, place))).arrayBuffer());
      return ort.InferenceSession.create(bytes);
    }));
  const networks = about.networks.rain.map(({name}) => ({name}));
  const restore = async (session, x) => {
    const out = await session.run({x: new ort.Tensor('float32', x, [1, 1, SIDE, SIDE])});
    return out[session.outputNames[0]].data;
  };

  const panes = figure.querySelector('.panes');
  for (const network of networks) {
    const pane = document.createElement('div');
    pane.innerHTML = `<div class="pane"><canvas width="${SIDE}" height="${SIDE}" role="img"></canvas>` +
      `<canvas class="after" width="${SIDE}" height="${SIDE}" role="img"></canvas><i></i></div>` +
      `<div><b></b> <span></span></div>`;
    pane.querySelector('b').textContent = network.name;
    [network.before, network.after] = pane.querySelectorAll('canvas');
    network.after.ariaLabel = `restored by ${network.name}`;
    network.note = pane.querySelector('span');
    panes.append(pane);
  }

  const controls = figure.querySelector('.controls'), values = {};
  let clean = null, busy = false, again = false, kind = 'rain';

  async function update() {
    if (!clean) return;
    if (busy) { again = true; return; }
    busy = true;
    figure.dataset.state = 'busy';
    try {
      do {
        again = false;
        await show({...values});
      } while (again);
    } catch (error) {  // a network that did not come; the next change tries again
      state.textContent = `The restorations failed (${error.message}).`;
    }
    busy = false;
    figure.dataset.state = 'ready';
  }

  async function show(now) {
    const damage = DAMAGES[kind], sessions = await load(kind), quarters = now.turn / 90;
    const began = performance.now(), x = turned(damage.apply(clean, now), quarters);
    const truth = turned(clean, quarters), further = turned(x, 1);
    for (const [i, network] of networks.entries()) {
      network.y = await restore(sessions[i], x);
      network.quality = `${psnr(network.y, truth).toFixed(1)} dB`;
      network.note.textContent = network.quality;
      paint(network.before, x);
      paint(network.after, network.y);
    }
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    const told = damage.absent(now) ? damage.none : `${damage.now} ${psnr(x, truth).toFixed(1)} dB`;
    state.textContent = `${told}. Four restorations in ${seconds} s.`;
    for (const [i, network] of again ? [] : networks.entries()) {
      const z = await restore(sessions[i], further);
      const error = squares(z, turned(network.y, 1)) / squares(network.y);
      network.note.textContent = `${network.quality} · error ${error.toPrecision(2)}`;
    }
  }

  async function take(source) {
    try {
      clean = await grey(await source);
    } catch (error) {
      state.textContent = `This is no picture that the browser can read (${error.message}).`;
      return;
    }
    await update();
  }

  const choose = document.createElement('label');
  choose.innerHTML = '<span>Photograph</span><select></select>';
  const select = choose.querySelector('select');
  about.photographs.forEach(({name, file}) => select.add(new Option(name, file)));
  select.onchange = () => take(fetched(new URL(select.value, place)).then(answer => answer.blob()));
  const own = document.createElement('label');
  own.innerHTML = '<span>or your own (or drop one here)</span><input type="file" accept="image/*">';
  own.querySelector('input').onchange = event => event.target.files[0] && take(event.target.files[0]);
  const damages = document.createElement('label');
  damages.innerHTML = '<span>Its damage</span><select name="damage"></select>';
  for (const key of Object.keys(about.networks))
    damages.querySelector('select').add(new Option(DAMAGES[key].name, key));
  const settings = document.createElement('div');
  controls.append(choose, own, damages, settings);
  function offer([name, label, min, max, step, value, unit]) {
    const row = document.createElement('label');
    row.innerHTML = `<span>${label}</span><input type="range" name="${name}" min="${min}" max="${max}" ` +
      `step="${step}" value="${value}" autocomplete="off"><output>${value}${unit}</output>`;
    values[name] = value;
    row.querySelector('input').oninput = event => {
      values[name] = +event.target.value;
      row.querySelector('output').value = event.target.value + unit;
      update();
    };
    settings.append(row);
  }
  function suffer() {
    settings.replaceChildren();
    Object.keys(values).forEach(name => delete values[name]);
    DAMAGES[kind].settings.forEach(offer);
    networks.forEach(network => { network.before.ariaLabel = DAMAGES[kind].before; });
  }
  suffer();
  damages.querySelector('select').onchange = event => {
    kind = event.target.value;
    suffer();
    update();
  };
  const line = document.createElement('label');
  line.innerHTML = '<span>damaged</span><input type="range" value="50" aria-label="damaged to restored">' +
    '<span>restored</span>';
  const move = at => figure.style.setProperty('--at', `${at}%`);
  line.querySelector('input').oninput = event => move(event.target.value);
  panes.onpointermove = panes.onpointerdown = event => {
    const pane = event.target.closest('.pane');
    if (!pane || !(event.buttons || event.pointerType === 'mouse')) return;
    const box = pane.getBoundingClientRect(), at = 100 * (event.clientX - box.left) / box.width;
    move(line.querySelector('input').value = Math.max(0, Math.min(100, at)));
  };
  controls.append(line);
  figure.ondragover = event => event.preventDefault();
  figure.ondrop = event => {
    event.preventDefault();
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  };
  await select.onchange();
}
