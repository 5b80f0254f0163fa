"""Packaging of Switchyard. Ranges are what each project itself supports; exact, hashed sets are the two locks (decision 1)."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
LIGHTGBM = ["lightgbm>=4.5,<5"]
HUGGINGFACE = ["peft>=0.17,<1", "tokenizers>=0.21,<1", "transformers>=4.55,<6"]
KUBEFLOW = ["kfp>=2.17,<2.17.3", "kfp-kubernetes>=2.17,<2.17.3"]
# Signatures of bundles in the format of OpenSSF. model-signing 1.1 imports pyOpenSSL without declaring it.
SIGNING = ["cryptography>=42", "model-signing>=1.1,<2", "pyopenssl>=24"]
# The only one of TensorFlow's CUDA libraries that PyTorch's wheel does not bring. `tensorflow[and-cuda]` lists all of them, with
# an NCCL later than the one that PyTorch pins, so it needs an override; NCCL 2 keeps its ABI.
GPU = ["nvidia-cuda-nvcc-cu12>=12.5.82,<13 ; sys_platform == 'linux'"]

setup(
    name="switchyard",
    version="0.1.0",
    description="One ML pipeline, TensorFlow or PyTorch, on this machine or on Kubeflow, tracked in MLflow",
    long_description=(HERE / "README.md").read_text(encoding="utf-8") if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["switchyard", "switchyard.*"]),
    package_data={
        "switchyard": ["py.typed"],
        "switchyard.pipelines": [
            "py.typed",
            "examples/*/*.md",
            "examples/*/*.py",
            "examples/*/*.yaml",
            "examples/*/*.pbtxt",
            "examples/*/*.csv",
            "examples/*/*.jsonl",
            "examples/*/*.parquet",
            "examples/*/*/*.json",
            "examples/*/*/*.safetensors",
            "project/templates/*.j2",
            "project/templates/*/*.py",
        ],
        "switchyard.components": ["py.typed", "pages/*.html", "user_code/constraints-*.txt"],
    },
    entry_points={
        "console_scripts": [
            "switchyard=switchyard.pipelines.cli:entry",
            "switchyard-beam-worker=switchyard.components.beam.worker:main",
        ]
    },
    install_requires=[
        "apache-beam>=2.72,<2.78",
        "boto3>=1.34",
        "click>=8.1,<9",
        "filelock>=3.16",
        "grpcio>=1.62,<2",
        "httptools>=0.6",
        "jinja2>=3.1,<4",
        "docker>=7,<8",
        "kubernetes>=26",
        # 2.6.2 and 2.6.3 were malicious. Both names, as the one brings the other.
        "lightning>=2.6,<2.7,!=2.6.2,!=2.6.3",
        "pytorch-lightning!=2.6.2,!=2.6.3",
        "matplotlib>=3.8,<4",
        "mlflow>=3.17,<4",
        "numpy>=1.26,<3",
        "nvidia-ml-py>=12",
        "orjson>=3.10",
        "optuna>=5,<6",
        "packaging>=23",
        "pandas>=2.2,<3",
        "pillow>=10",
        "prometheus-client>=0.20",
        "psutil>=5.9",
        "pyarrow>=14",
        "pydantic>=2.10,<3",
        "pyyaml>=6,<7",
        "rich>=13.9",
        "safetensors>=0.5,<1",
        "scikit-learn>=1.4,<2",
        "scipy>=1.11,<2",
        "joblib>=1.3,<2",
        "starlette>=0.40",
        # Not imported by us: TFX's Tuner and Keras' TensorBoard callback do, and TensorFlow 2.21 no longer brings it.
        "tensorboard>=2.20,<3",
        "tensorflow>=2.21,<2.22",
        "tensorflow-data-validation>=1.16,<2",
        "tensorflow-model-analysis>=0.48,<1",
        "tensorflow-transform>=1.16,<2",
        "tfx>=1.21,<1.22",
        "tfx-bsl>=1.16,<2",
        "uvicorn>=0.30",
        "uvloop>=0.20",
        # From 2.11 on PyPI's PyTorch is built for CUDA 13; TensorFlow 2.21 is for CUDA 12, and both load one cuDNN and one NCCL.
        "torch>=2.9,<2.11",
        "torchmetrics>=1.6,<2",
        # Not imported by us: tfx-bsl 1.16 imports dill, TFX installs user modules with pip, TFX's proto code needs pkg_resources.
        "dill",
        "pip",
        "setuptools<81",
    ],
    extras_require={
        "gpu": GPU,
        "huggingface": HUGGINGFACE,
        "kubeflow": KUBEFLOW,
        "lightgbm": LIGHTGBM,
        "signing": SIGNING,
        "dev": [
            *GPU,
            *HUGGINGFACE,
            *KUBEFLOW,
            *LIGHTGBM,
            *SIGNING,
            # The example trainers. JAX after 0.7.1 needs NumPy 2.
            "flax>=0.10",
            "jax>=0.6,<0.7.2",
            "xgboost-cpu>=3,<4",
            "hypothesis>=6.100",
            "import-linter>=2.1",
            "kubeflow-trainer-api>=2.0",
            "kubernetes-validate>=1.30",
            "mypy>=1.13",
            "pandas-stubs>=2.2,<3",
            "playwright>=1.50",
            # 9.2 has no `Node._nodeid`, by which xdist 3.8 keeps groups together.
            "pytest>=8.3,<9.2",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            "schemathesis>=4",
            "tritonclient[http]>=2.50,<2.70",
            "types-PyYAML",
            "types-psutil",
        ],
    },
)
