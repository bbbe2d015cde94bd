"""This room gives answers their grades, and says what a grade is worth (docs/grading.md).

grade, grader_specs, make_grader    what is graded, by what, as a plan states it
verifiers, number_answers           right answers known: exact, contains, numeric, choice, regex, json
math_grader, code_grader            math-verify and unit tests, each in a process of its own: sandbox, sandbox_launcher, code_harness
reward_model                        a scalar reward by transformers
judge, rubrics                      requests to a judge model, and its replies read; the calls are made elsewhere
grader_calibration, label_noise     raw scores to qualities, judged on labels not seen; what one sample of an answer tells
"""
