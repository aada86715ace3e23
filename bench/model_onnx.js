// ONNX Runtime's side of the whole models in bench/bench.sh: files that bench/model_torch.py exported.
//   node model_onnx.js FOLDER THREADS
// Checks logits against FOLDER/logits.safetensors, takes the faster of plain.onnx and fused.onnx, prints "ready WHAT", then answers
// each line on standard input with the milliseconds of a call.
'use strict';
const fs = require('fs');
const path = require('path');
const readline = require('readline');
const ort = require('onnxruntime-node');

function tensor(file, name) {
    const data = fs.readFileSync(file), header = Number(data.readBigUInt64LE(0));
    const about = JSON.parse(data.toString('utf8', 8, 8 + header))[name];
    const part = data.subarray(8 + header + about.data_offsets[0], 8 + header + about.data_offsets[1]);
    const copy = new Uint8Array(part).buffer;
    return { shape: about.shape, values: about.dtype === 'I32' ? new Int32Array(copy) : new Float32Array(copy) };
}

// Milliseconds; of one thread the processor time that it took, which other processes lengthen less.
async function timed(call, threads) {
    const begun = process.hrtime.bigint(), used = process.cpuUsage();
    await call();
    if (threads > 1) return Number(process.hrtime.bigint() - begun) / 1e6;
    const now = process.cpuUsage(used);
    return (now.user + now.system) / 1e3;
}

function compare(file, got, expected) {
    let worst = 0, largest = 0;
    for (let i = 0; i < expected.length; i++) {
        const difference = Math.abs(got[i] - expected[i]);
        if (!(difference <= worst)) worst = difference;
        largest = Math.max(largest, Math.abs(expected[i]));
    }
    if (got.length !== expected.length || !(worst < 1e-4 * largest)) throw new Error(`${file}: logits differ from PyTorch's by ${worst}`);
}

async function main() {
    const folder = process.argv[2], threads = Number(process.argv[3]);
    const tokens = tensor(path.join(folder, 'tokens.safetensors'), 'tokens'), expected = tensor(path.join(folder, 'logits.safetensors'), 'logits').values;
    const feeds = { tokens: new ort.Tensor('int64', BigInt64Array.from(tokens.values, BigInt), tokens.shape) };
    let best = null;
    for (const what of ['plain', 'fused']) {
        const file = path.join(folder, what + '.onnx');
        const session = await ort.InferenceSession.create(file, {
            intraOpNumThreads: threads, interOpNumThreads: 1, executionMode: 'sequential', graphOptimizationLevel: 'all',
            enableCpuMemArena: true, enableMemPattern: true, logSeverityLevel: 3,
            extra: { session: { set_denormal_as_zero: '1' } },
        });
        const call = () => session.run(feeds);
        compare(file, (await call()).logits.data, expected);
        const taken = Math.min(await timed(call, threads), await timed(call, threads));
        console.error(`${taken.toFixed(1).padStart(9)} ms  ${what}`);
        if (!best || taken < best.taken) {
            if (best) await best.session.release();
            best = { taken, what, call, session };
        } else await session.release();
    }
    console.log('ready\t' + best.what);
    for await (const line of readline.createInterface({ input: process.stdin })) {
        const times = [], begun = process.hrtime.bigint();
        while (times.length === 0 || Number(process.hrtime.bigint() - begun) < 5e8) times.push(await timed(best.call, threads));
        times.sort((a, b) => a - b);
        console.log(times[times.length >> 1].toFixed(4));
    }
}

main().catch((error) => { console.error('model_onnx.js: ' + error.message); process.exit(1); });
