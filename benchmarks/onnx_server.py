"""The part of transcription_speed.py that runs in an environment with optimum-onnx: windows in, tokens out.

pip install optimum-onnx onnxruntime
"""

import json
import sys

import numpy as np
import onnxruntime
import torch
from optimum.onnxruntime import ORTModelForSpeechSeq2Seq
from transformers import GenerationMixin, WhisperFeatureExtractor


def main() -> None:
    """Exports the Whisper of a directory, then transcribes one array of samples after another."""
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(settings["threads"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings["threads"]
    model = ORTModelForSpeechSeq2Seq.from_pretrained(settings["directory"], export=True, session_options=options)
    extractor = WhisperFeatureExtractor(settings["num_mel_bins"])
    model.generation_config.suppress_tokens = settings["suppressed"]
    model.generation_config.begin_suppress_tokens = settings["at_begin"]
    start = torch.tensor([settings["start"]])
    answers = sys.stdout
    print("ready", file=answers, flush=True)
    while shape := sys.stdin.buffer.readline():
        windows, length = json.loads(shape)
        samples = np.frombuffer(sys.stdin.buffer.read(4 * windows * length), np.float32).reshape(windows, length)
        mels = extractor(list(samples), sampling_rate=16_000, return_tensors="pt").input_features
        said = GenerationMixin.generate(
            model,
            mels,
            decoder_input_ids=start.repeat(len(samples), 1),
            max_new_tokens=settings["tokens"],
            do_sample=False,
            num_beams=1,
        )
        print(json.dumps(said[:, start.shape[1] :].tolist()), file=answers, flush=True)


if __name__ == "__main__":
    main()
