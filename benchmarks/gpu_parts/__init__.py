"""The parts of benchmarks/gpu.py: is it right, how fast is it, and what does enlarging buy on a GPU?"""
